"""llem study, and llem studies."""

import importlib
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.console import counted, say
from llem.cli.max_time import MaxTimeOption, limit_of
from llem.cli.options import JsonOption, StoreOption
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
from llem.study.plan import Slot, Study, block_count, cell_name, read_study
from llem.study.runner import DueRun, StudyOutcome, resume_study, start_study

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
        typer.Option(metavar="STUDY", help="Go on with a study: an id, a prefix, a name, or @last."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Blocks, in the place of the plan's.")
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
    planned = read_study(plan_path) if plan_path is not None else None
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
        _write_schedule(chosen, repeats or planned_blocks, is_program=bool(command), done=done)
        return
    if (rank := launch_of(os.environ).rank) is not None:
        raise PlanError(
            "llem study",
            found=f"rank {rank.rank} of {rank.size}",
            expected="one process: studies are not measured by ranks",
        )
    with Interruptions():
        outcome = _run(planned, place, command, resume=resume, repeats=repeats, limit=limit)
    history = read_history(place, outcome.study_id)
    _say_how_it_ended(outcome, place)
    if outcome.runs:
        _write_findings(place, history)
    if outcome.interrupted_by:
        sys.exit(console.INTERRUPTED)
    if outcome.runs_left:
        sys.exit(FAILED)


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


def _write_schedule(
    study: Study, repeats: int | None, *, is_program: bool, done: Collection[Slot] = ()
) -> None:
    """Cells, the order of every block, and how long what is left takes at least."""
    for number, cell in enumerate(study.cells):
        say(f"cell {number}: {cell_name(cell)}")
    slots = study.schedule(repeats)
    for block in range(block_count(slots)):
        order = " ".join(str(slot.cell) for slot in slots if slot.block == block)
        say(f"block {block + 1}: cells {order}")
    left = [slot for slot in slots if slot not in done]
    if not left:
        say(f"{counted(len(slots), 'run')}, all done; more --repeats measure more blocks")
        return
    seconds = sum(least_s(study.plan_of(slot), is_program=is_program) for slot in left)
    length = f"{int(seconds)} s" if seconds < SECONDS_SAID else f"{int(seconds / 60)} minutes"
    of_all = f" left of {len(slots):,}" if len(left) < len(slots) else ""
    say(f"{counted(len(left), 'run')}{of_all}, at least {length}")


def _say_how_it_ended(outcome: StudyOutcome, store: Store) -> None:
    left = f", {outcome.runs_left} left" if outcome.runs_left else ""
    why = f": {outcome.stopped}" if outcome.stopped else ""
    console.note(f"llem: study {outcome.study_id}: {counted(outcome.runs, 'run')}{left}{why}")
    if outcome.runs_left:
        console.note(f"llem: `llem study --resume {outcome.study_id} --store {store.path}` goes on")


def _write_findings(store: Store, history: StudyHistory) -> None:
    """Each cell beside the first, as far as there are runs; only now is the database loaded."""
    comparing = importlib.import_module("llem.comparing.findings")
    compare, tables = (importlib.import_module(f"llem.cli.{name}") for name in ("compare", "tables"))
    members = history.cells()
    first = cell_name(history.started.cells[history.started.reference_cell])
    if first not in members or len(members) < 2:
        return
    try:
        with tables.tables_of(store) as connection:
            findings = comparing.compare_groups(connection, members, usual=FEW)
            compare.write_comparison(findings, store, instead="`llem compare`")
    except LlemError as error:
        console.complain(f"the runs of {history.study_id} cannot be compared now: {error}")


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
