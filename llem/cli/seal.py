"""llem seal."""

import os
import re
import sys
from enum import StrEnum
from functools import partial
from typing import Annotated

import msgspec
import typer

from llem.cli import completing, console
from llem.cli.options import JsonOption, StoreOption
from llem.cli.progress import MB, WorkLine
from llem.errors import StoreError
from llem.measure.launch import launch_of
from llem.projections.progress import watched_by
from llem.projections.sealed import FOLDER
from llem.seal.sealing import FanOut, Sealing, Share
from llem.seal.sealing import seal as seal_store
from llem.seal.workers import by_dask, check_address
from llem.store import Store

_STATUS = {
    "damaged": console.DAMAGED,
    "newer": console.WRONG,
    "unreadable": console.WRONG,
    "unfinished": console.DONE,
}


class Engine(StrEnum):
    """Who does the work."""

    PROCESSES = "processes"
    DASK = "dask"


def seal(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help=f"A folder, or an address such as s3://BUCKET/FOLDER; {FOLDER} in the store by default.",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="Only these: an id, a prefix, a name, or @last.",
            autocompletion=completing.run,
            show_default=False,
        ),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only the I-th of N shares, from 0; by default the rank that a launcher gives.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Processes; as many as processors by default.", show_default=False
        ),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Who does the work: processes here, or Dask (pip install 'llem[dask]').")
    ] = Engine.PROCESSES,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Dask's scheduler, as tcp://HOST:8786; DASK_SCHEDULER_ADDRESS by default.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Write what the log holds as zstd Parquet, hive partitioned by table, experiment and host; go on where an earlier one ended.

    What is sealed already is skipped. An experiment that still runs is left for the next time; nothing stays of a damaged one.
    """
    place = Store.locate(store).require()
    only = None if experiment is None else [each for run in experiment for each in place.resolve_all(run)]
    line = WorkLine()
    try:
        with watched_by(line.update):
            sealing = seal_store(
                place,
                place.path / FOLDER if to is None else to,
                only=only,
                share=_share(share),
                workers=workers,
                fan_out=_fan_out(engine, scheduler),
                from_tables=engine is Engine.PROCESSES,
                on_progress=line.update,
            )
    finally:
        line.erase()
    for left in sealing.left:
        if left.kind == "unfinished":
            console.note(f"llem: {left}")
        else:
            console.complain(str(left))
    console.say(msgspec.json.encode(sealing, enc_hook=str).decode() if json else _told(sealing))
    sys.exit(max([console.DONE, *(_STATUS.get(left.kind, console.FAILED) for left in sealing.left)]))


def _fan_out(engine: Engine, scheduler: str | None) -> FanOut | None:
    """None for processes of this host. Raises StoreError, LlemError."""
    if engine is Engine.PROCESSES:
        if scheduler is not None:
            raise StoreError("--scheduler", found="--engine processes", expected="--engine dask")
        return None
    address = scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address is None:
        raise StoreError("--engine dask", found="no scheduler", expected="--scheduler tcp://HOST:8786")
    return partial(by_dask, scheduler=check_address(address))


def _share(written: str | None) -> Share | None:
    """The one that is written, or that of this process among those that a launcher started. Raises StoreError, MeasureError."""
    if written is None:
        launch = launch_of(os.environ)
        for contradiction in launch.contradictions:
            console.complain(contradiction)
        return None if launch.rank is None else Share(launch.rank.rank, launch.rank.size)
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", written)
    if match is None or int(match[1]) >= int(match[2]):
        raise StoreError("--share", found=repr(written), expected="I/N with I below N, such as 0/4")
    return Share(int(match[1]), int(match[2]))


def _told(sealing: Sealing) -> str:
    if not sealing.segments and not sealing.experiments:
        return (
            f"{sealing.folder}: nothing new, {console.counted(sealing.done_before, 'segment')} sealed before"
        )
    rows = f"{console.counted(sealing.samples, 'sample')}, {console.counted(sealing.requests, 'request')}"
    return (
        f"{sealing.folder}: {console.counted(sealing.segments, 'segment')} of {console.counted(sealing.experiments, 'experiment')} sealed, "
        f"{rows}; {sealing.log_bytes / MB:,.1f} MB of log, {sealing.parquet_bytes / MB:,.1f} MB of Parquet"
    )
