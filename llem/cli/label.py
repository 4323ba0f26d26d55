"""llem label."""

import time
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.options import RunArgument, StoreOption, key_and_value
from llem.errors import PlanError
from llem.store import Store, open_segment
from llem_events.events import ExperimentLabelled


def label(
    run: RunArgument,
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="What to set.", show_default=False)
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="KEY", help="A label to remove.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Change the labels of an experiment, also of one that ended long ago.

    The log gets a note; what stands in it already is never written again. No figure and no hash changes.
    """
    place = Store.locate(store)
    changed: dict[str, str | None] = {**dict.fromkeys(remove or ()), **dict(map(key_and_value, labels or ()))}
    if not changed:
        raise PlanError("llem label", found="no label", expected="KEY=VALUE, or --remove KEY")
    experiment_id = place.resolve(run)
    folder = place.log_path / experiment_id
    with open_segment(folder, experiment_id=experiment_id, role="note") as writer:
        writer.append(ExperimentLabelled(labels=changed), at_ns=time.monotonic_ns())
        writer.seal()
    told = ", ".join(f"{key} removed" if text is None else f"{key}={text}" for key, text in changed.items())
    console.note(f"llem: {experiment_id}: {console.on_one_line(told)}")
