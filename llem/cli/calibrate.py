"""llem calibrate, and the table of what was found."""

import importlib
import sys
import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from llem.cli import console
from llem.cli.options import StoreOption
from llem.cli.progress import progress_line
from llem.measure.calibration import DEFAULT_S, LONGEST_S, SHORTEST_S, Wanted, check
from llem.measure.calibration import calibrate as run_calibration
from llem.measure.calibration_load import LOADS
from llem.measure.children import Interruptions
from llem.measure.messages import MEASURING
from llem.measure.outcome import Outcome
from llem.measure.supervisor import Progress
from llem.meters import MeterChoice
from llem.registry import METERS, one_of
from llem.store import Store


def calibrate(
    gpu: Annotated[
        str | None,
        typer.Option(metavar="0,1", help="GPUs by index or UUID; all that are visible by default."),
    ] = None,
    meter: Annotated[str | None, typer.Option(help=f"{one_of('auto', *METERS)}.")] = None,
    load: Annotated[
        str, typer.Option(help=f"{one_of(*LOADS)}: sums of arrays, or a simulated driver's own.")
    ] = "torch",
    seconds: Annotated[
        float, typer.Option(help="How long the load goes on and off, about.", min=SHORTEST_S, max=LONGEST_S)
    ] = DEFAULT_S,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which devices and how long, and stop.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Find out what the power sensors of devices see: how often, over how long and how late, by a load that is known.

    Later measurements of the same device under the same driver rely on it, and say so.
    """
    wanted = Wanted(
        gpus=gpu.split(",") if gpu is not None else None, meter=meter or "auto", load=load, seconds=seconds
    )
    place = Store.locate(store)
    if dry_run:
        named = [f"{device.uuid}  {device.name}" for device in check(wanted)]
        for line in named or [f"all devices of meter {wanted.meter}"]:
            console.say(line)
        console.say(f"about {wanted.duration_s:.0f} s of load on all at a time; nobody else may use them")
        return
    with Interruptions():
        outcome = _run(wanted, place)
        status = _report(outcome, place)
    sys.exit(status)


def _run(wanted: Wanted, store: Store) -> Outcome:
    began_s = time.monotonic()

    def begin(experiment_id: str, meter: MeterChoice) -> None:
        console.note(
            f"llem: run {experiment_id}, meter {meter.name}, about {wanted.duration_s:.0f} s of load"
        )

    with progress_line(quiet=False) as line:

        def update(progress: Progress) -> None:
            if progress.stage == MEASURING:
                left_s = max(0.0, wanted.duration_s - (time.monotonic() - began_s))
                progress = replace(progress, stage="load on and off", detail=f"about {left_s:.0f} s left")
            line.update(progress)

        return run_calibration(wanted, store, on_start=begin, on_progress=update)


def _report(outcome: Outcome, store: Store) -> int:
    """Print what was found; only now is the database loaded."""
    for failure in outcome.failures:
        console.complain(f"failed while {failure.stage}: {failure.text}")
    if outcome.folder is None:
        console.note(f"llem: nothing is kept of run {outcome.experiment_id}")
        return console.FAILED
    if outcome.interrupted:
        console.note(f"llem: interrupted by {outcome.interrupted_by}: nothing is calibrated")
        return console.INTERRUPTED
    if not outcome.is_success:
        console.complain(f"nothing is calibrated: {outcome.first_failure}")
        return console.FAILED
    return console.DONE if _show(store, outcome.experiment_id) else console.FAILED


def _show(store: Store, experiment_id: str) -> bool:
    """Whether anything of what was found can be relied on."""
    shown: Any = importlib.import_module("llem.cli.calibrations")
    with importlib.import_module("llem.cli.tables").tables_of(store, only=[experiment_id]) as connection:
        found = shown.calibrations_of(connection, experiment_id)
    if not found:
        console.complain("nothing is calibrated: the log holds no power that a sensor read")
    shown.write_calibrations(sys.stdout, found)
    sys.stdout.flush()
    is_of_use = any(each.reason is None for each in found)
    if is_of_use:
        console.note(f"llem: later runs into {store.path} on the same devices and driver rely on it")
    return is_of_use
