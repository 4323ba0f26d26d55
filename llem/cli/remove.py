"""llem rm."""

import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llem.cli import completing, console
from llem.cli.options import StoreOption
from llem.cli.tables import tables_of
from llem.errors import StoreError
from llem.projections.sealed import FOLDER
from llem.store import Store

FACTS = """
SELECT e.experiment_id, coalesce(e.name, ''), e.status, r.study_id,
       (SELECT sum(file_bytes) FROM segments s WHERE s.experiment_id = e.experiment_id)
FROM experiments e LEFT JOIN experiment_results r USING (experiment_id) WHERE list_contains($ids, e.experiment_id) ORDER BY 1
"""
MB = 10**6


def remove(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids, prefixes of one, names or @last.", autocompletion=completing.run
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove experiments from the store, for good: their log, and what the tables have of it at the next query.

    A name means the newest experiment of that name. One that is being measured is refused. What llem seal, collect or export wrote stays.
    """
    place = Store.locate(store)
    ids = list(dict.fromkeys(place.resolve(run) for run in runs))
    with tables_of(place) as connection:
        rows = connection.execute(FACTS, {"ids": ids}).fetchall()
    _check_at_rest(rows)
    known = {row[0]: row for row in rows}
    for experiment_id in ids:
        console.note(_line(*known.get(experiment_id, (experiment_id, "", "without a segment", None, 0))))
    if not yes and not _agreed(len(ids)):
        console.note("llem: nothing was removed")
        raise typer.Exit(console.FAILED)
    for experiment_id in ids:
        place.remove_experiment(experiment_id)
    console.note(f"llem: removed {console.counted(len(ids), 'experiment')}")
    for experiment_id in ids:
        _tell_sealed(place, experiment_id)


def _tell_sealed(place: Store, experiment_id: str) -> None:
    """What is left of it as Parquet in the store: somebody may have sealed it to be rid of its log alone."""
    folders = f"*/experiment_id={experiment_id}"
    if next((place.path / FOLDER).glob(folders), None) is not None:
        sealed = f"{shlex.quote(str(place.path / FOLDER))}/{folders}"
        console.note(f"llem: {experiment_id} stays as Parquet; remove that too: rm -r {sealed}")


def _check_at_rest(rows: Sequence[tuple[Any, ...]]) -> None:
    running = [experiment_id for experiment_id, _, status, *_ in rows if status == "running"]
    if running:
        raise StoreError(
            f"run {running[0]} is being measured", hint="stop it first, or wait until it has ended"
        )


def _line(experiment_id: str, name: str, status: str, study_id: str | None, log_bytes: int | None) -> str:
    """What would be lost."""
    size = f"{(log_bytes or 0) / MB:,.3f} MB"
    facts = [experiment_id, *([name] if name else []), status, size]
    if study_id is not None:
        facts.append(f"a run of study {study_id}, which `llem study` measures again when it is resumed")
    return "llem: " + ", ".join(console.on_one_line(fact) for fact in facts)


def _agreed(number: int) -> bool:
    """Whether a person says yes. Raises StoreError where nobody can be asked."""
    if not console.can_ask():
        raise StoreError("nobody can be asked whether to remove", hint="say so with --yes")
    answer: str = typer.prompt(
        f"Remove {console.counted(number, 'experiment')} for good? [y/N]",
        default="n",
        show_default=False,
        prompt_suffix=" ",
        err=True,
    )
    return answer.strip().lower() in ("y", "yes")
