"""llem collect."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from llem.cli import console
from llem.cli.options import JsonOption
from llem.cli.table import write_table
from llem.measure.known_calibrations import take as take_calibrations
from llem.seal.collect import Collected, Left, check_apart, collect_experiment
from llem.seal.collect import collect as collect_store
from llem.store import Store

COLUMNS = ("store", "experiments", "copied", "bytes", "already there", "left")
_STATUS = {"damaged": console.DAMAGED, "newer": console.WRONG, "unreadable": console.WRONG}


def collect(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores to take from.")],
    into: Annotated[
        Path, typer.Option(metavar="STORE", help="The store to bring them into; made if missing.")
    ],
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Take what is damaged too, byte for byte as it is.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Copy and verify the logs of many stores into one, the segments of an experiment of several hosts into one folder.

    What is there already is skipped; nothing of a source changes. An experiment that still runs, or of which a segment is damaged or
    conflicts with one that is there, is left and named: status 1, and 3 where something is damaged.
    """
    sources = [Store(path).require(option=None) for path in stores]
    target = Store(into)
    for source in sources:
        check_apart(source, target)
    collected = []
    for source in sources:
        collected.append(collect_store(source, target, salvage=salvage))
        _tell(collected[-1])
        take_calibrations(target, source=source)
    if json:
        for each in collected:
            console.say(msgspec.json.encode(each, enc_hook=str).decode())
    else:
        write_table(sys.stdout, COLUMNS, [_row(each) for each in collected], instead="--json")
    sys.exit(_status_of(collected))


def collection(path: Path, source: Store) -> Store:
    """Where what is measured in a store is to be brought, made if missing. Raises StoreError."""
    into = Store(path)
    check_apart(source, into)
    return into.create(option="--collect")


def collect_run(folder: Path, into: Store) -> int:
    """Take the experiment of one folder, say so, and return the status of that."""
    collected = collect_experiment(Store(folder.parent.parent), into, folder.name)
    _tell(collected)
    if not collected.left:
        console.note(f"llem: collected {console.counted(collected.segments, 'segment')} into {into.path}")
    return _status_of([collected])


def collect_study(source: Store, into: Store, ids: Collection[str]) -> int:
    """Take a study and its runs, say so, and return the status of that."""
    collected = collect_store(source, into, only=ids)
    _tell(collected)
    if not collected.left:
        console.note(f"llem: collected {console.counted(collected.experiments, 'run')} into {into.path}")
    return _status_of([collected])


def _tell(collected: Collected) -> None:
    """What was left, and what is damaged and was taken."""
    for left in collected.left:
        console.complain(str(left))
    for taken in collected.damaged:
        console.complain(f"{taken.path} was taken with its damage: {taken.reason}")


def _status_of(collected: Sequence[Collected]) -> int:
    """The worst of all that was left; what is there as it should be is 0."""
    left: list[Left] = [left for each in collected for left in each.left]
    damaged = [console.DAMAGED for each in collected if each.damaged]
    return max([console.DONE, *damaged, *(_STATUS.get(each.kind, console.FAILED) for each in left)])


def _row(collected: Collected) -> tuple[str, int, int, int, int, int]:
    return (
        str(collected.source),
        collected.experiments,
        collected.segments,
        collected.copied_bytes,
        collected.present,
        len(collected.left),
    )
