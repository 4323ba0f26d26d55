"""llem study, and llem studies."""

import importlib
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from llem.cli import completing, console
from llem.cli.console import counted, say
from llem.cli.max_time import MaxTimeOption, limit_of
from llem.cli.options import JsonOption, SettingsOption, StoreOption
from llem.cli.progress import progress_line
from llem.cli.table import write_table
from llem.errors import LlemError, PlanError
from llem.export import formats
from llem.measure.children import Interruptions
from llem.measure.launch import launch_of
from llem.measure.outcome import Outcome
from llem.measure.shared_server import StudyServer
from llem.measure.supervisor import measure
from llem.measure.time_limit import TimeLimit, least_s
from llem.store import Store
from llem.study.history import StudyHistory, find_study, read_history, studies_not_begun, study_ids
from llem.study.plan import Cell, Slot, Study, block_count, cell_name, read_study
from llem.study.runner import DueRun, StudyOutcome, resume_study, start_study

if TYPE_CHECKING:
    from llem.comparing.findings import Findings

FEW = ("energy_per_output_token_j", "total_energy_j", "output_tokens_per_second", "e2e_median_ms")
SECONDS_SAID = 180  # of more, whole minutes are said
FAILED = 1


def study(
    context: typer.Context,
    plan_path: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN.toml", help="A plan with [study].", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Go on with a study: an id, a prefix, a name, or @last.",
            autocompletion=completing.study,
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Blocks, in the place of the plan's.")
    ] = None,
    settings: SettingsOption = None,
    json: JsonOption = False,
    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE",
            help="When it has ended, bring it and its runs into this store too.",
            show_default=False,
        ),
    ] = None,
    max_time: MaxTimeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print cells, order and time, and stop.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Measure the configurations of a plan with [study], block after block in a drawn order.

    What is done is known from the log alone: --resume goes on after any end, and with more --repeats.
    """
    program: list[str] = context.obj or []
    if plan_path is None and settings:
        raise PlanError("--set", found="no plan", expected="PLAN.toml beside it")
    planned = read_study(plan_path, settings or ()) if plan_path is not None else None
    place = Store.locate(store)
    begun = None if resume is None else find_study(place, resume)
    chosen = planned if begun is None else begun.study()
    if chosen is None:
        raise PlanError(
            "llem study", found="neither a plan nor --resume", expected="PLAN.toml or --resume STUDY"
        )
    command = _command(program, begun)
    limit = limit_of(max_time, chosen.plans, is_program=bool(command))
    if dry_run:
        planned_blocks, done = (None, ()) if begun is None else (block_count(begun.schedule), begun.counted())
        outlook = _Outlook.of(chosen, repeats or planned_blocks, is_program=bool(command), done=done)
        if json:
            say(formats.as_json(outlook._asdict()).decode())
        else:
            _say_schedule(outlook)
        return
    if (rank := launch_of(os.environ).rank) is not None:
        raise PlanError(
            "llem study",
            found=f"rank {rank.rank} of {rank.size}",
            expected="one process: studies are not measured by ranks",
        )
    collection = None if collect is None else _module("collect").collection(collect, place)
    with Interruptions():
        outcome = _run(planned, place, command, resume=resume, repeats=repeats, limit=limit)
    history = read_history(place, outcome.study_id)
    _say_how_it_ended(outcome, place)
    findings = _findings(place, history) if outcome.runs else None
    if json:
        comparison = None if findings is None else _module("compare").whole(findings)
        told = {"name": history.started.name, **outcome._asdict(), "comparison": comparison}
        say(formats.as_json(told).decode())
    elif findings is not None:
        _module("compare").write_comparison(findings, place, instead="`llem compare`")
    status = console.DONE
    if collection is not None:
        ids = {outcome.study_id, *(run.experiment_id for run in history.runs)}
        status = _module("collect").collect_study(place, collection, ids)
    if outcome.interrupted_by:
        sys.exit(console.INTERRUPTED)
    sys.exit(FAILED if outcome.runs_left else status)


def _command(program: Sequence[str], begun: StudyHistory | None) -> Sequence[str]:
    """The program that is measured. Raises PlanError for another one than that of a study that is resumed."""
    if begun is None:
        return program
    if program:
        raise PlanError("--", found="a program beside --resume", expected="that of the study, which is known")
    return begun.started.command


def _run(
    planned: Study | None,
    store: Store,
    command: Sequence[str],
    *,
    resume: str | None,
    repeats: int | None,
    limit: TimeLimit | None,
) -> StudyOutcome:
    with StudyServer() as server:

        def run(due: DueRun) -> Outcome:
            console.note(f"llem: {due.progress}")
            shared = server.under(due.plan)
            with progress_line(quiet=bool(command) or not sys.stderr.isatty()) as line:
                outcome = measure(
                    due.plan if shared is None else shared.plan_of(due.plan),
                    store,
                    command=command,
                    place=due.place,
                    server=shared,
                    keeps_server=server.is_kept_for(due.following),
                    limit=due.limit,
                    on_progress=line.update,
                )
            _say_what_failed(outcome)
            return outcome

        if resume is not None:
            return resume_study(resume, store, planned=planned, repeats=repeats, run=run, limit=limit)
        assert planned is not None
        return start_study(planned, store, command=command, repeats=repeats, run=run, limit=limit)


def _say_what_failed(outcome: Outcome) -> None:
    for failure in outcome.failures:
        console.complain(f"run {outcome.experiment_id} failed while {failure.stage}: {failure.text}")
    if outcome.is_complete and not outcome.is_success:
        console.complain(f"run {outcome.experiment_id} failed: {outcome.first_failure}")


class _Outlook(NamedTuple):
    """What a study would do."""

    cells: Sequence[Cell]
    blocks: Sequence[Sequence[int]]  # the cells of each, in order
    runs: int
    runs_left: int
    least_s: float  # that these take

    @classmethod
    def of(
        cls, study: Study, repeats: int | None, *, is_program: bool, done: Collection[Slot] = ()
    ) -> "_Outlook":
        slots = study.schedule(repeats)
        blocks = [[slot.cell for slot in slots if slot.block == block] for block in range(block_count(slots))]
        left = [slot for slot in slots if slot not in done]
        seconds = sum(least_s(study.plan_of(slot), is_program=is_program) for slot in left)
        return cls(study.cells, blocks, len(slots), len(left), seconds)


def _say_schedule(outlook: _Outlook) -> None:
    """Cells, the order of every block, and how long what is left takes at least."""
    for number, cell in enumerate(outlook.cells):
        say(f"cell {number}: {cell_name(cell)}")
    for number, cells in enumerate(outlook.blocks, start=1):
        say(f"block {number}: cells {' '.join(map(str, cells))}")
    runs, left, seconds = outlook.runs, outlook.runs_left, outlook.least_s
    if not left:
        say(f"{counted(runs, 'run')}, all done; more --repeats measure more blocks")
        return
    length = f"{int(seconds)} s" if seconds < SECONDS_SAID else f"{int(seconds / 60)} minutes"
    of_all = f" left of {runs:,}" if left < runs else ""
    say(f"{counted(left, 'run')}{of_all}, at least {length}")


def _say_how_it_ended(outcome: StudyOutcome, store: Store) -> None:
    left = f", {outcome.runs_left} left" if outcome.runs_left else ""
    why = f": {outcome.stopped}" if outcome.stopped else ""
    console.note(f"llem: study {outcome.study_id}: {counted(outcome.runs, 'run')}{left}{why}")
    if outcome.runs_left:
        console.note(f"llem: `llem study --resume {outcome.study_id} --store {store.path}` goes on")


def _findings(store: Store, history: StudyHistory) -> "Findings | None":
    """Each cell beside the first, as far as there are runs; only now is the database loaded."""
    comparing, tables = importlib.import_module("llem.comparing.findings"), _module("tables")
    members = history.cells()
    first = cell_name(history.started.cells[history.started.reference_cell])
    if first not in members or len(members) < 2:
        return None
    try:
        with tables.tables_of(store) as connection:
            findings: Findings = comparing.compare_groups(connection, members, usual=FEW)
            return findings
    except LlemError as error:
        console.complain(f"the runs of {history.study_id} cannot be compared now: {error}")
        return None


def _module(name: str) -> Any:
    """Part of the command line that loads the database."""
    return importlib.import_module(f"llem.cli.{name}")


def studies(json: JsonOption = False, store: StoreOption = None) -> None:
    """List the studies in the store, the newest first."""
    place = Store.locate(store).require()
    columns = ("study", "name", "state", "cells", "blocks", "runs", "runs_left")
    rows = [_row(read_history(place, study_id)) for study_id in reversed(study_ids(place))]
    for study_id in studies_not_begun(place):
        console.complain(f"the log of study {study_id} has no beginning that can be read: it is passed over")
    if json:
        with console.text_output() as out:
            formats.write_json(out, columns, rows)
    elif rows:
        write_table(sys.stdout, (*columns[:-1], "left"), rows, instead="--json")
    else:
        console.note(f"llem: no study in {place.path}")


def _row(history: StudyHistory) -> tuple[object, ...]:
    runs = len(history.counted())
    left = len(history.schedule) - runs
    started = history.started
    return (
        history.study_id,
        started.name,
        history.end,
        len(started.cells),
        block_count(history.schedule),
        runs,
        left,
    )
