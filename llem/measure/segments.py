"""Opening the segment of one process of a measurement."""

import os
import platform
from pathlib import Path
from typing import Literal

from llem._version import __version__
from llem.store import SEGMENT_SUFFIX
from llem_events import (
    SCHEMA_VERSION,
    BackgroundWriter,
    SegmentHeader,
    SegmentWriter,
    SyncPolicy,
    boot_id,
    read_clocks,
)


def open_segment(
    folder: Path,
    *,
    experiment_id: str,
    role: Literal["supervisor", "worker", "sampler", "import"],
    process_index: int | None = None,
    sync: SyncPolicy = "block",
) -> BackgroundWriter:
    """A new segment in the experiment's folder, written by a thread of its own. Raises LogWriteError."""
    segment_id = os.urandom(16)
    clocks = read_clocks()
    header = SegmentHeader(
        segment_id=segment_id,
        experiment_id=experiment_id,
        role=role,
        process_index=process_index,
        host=platform.node(),
        boot_id=boot_id(),
        pid=os.getpid(),
        llem_version=__version__,
        schema_version=SCHEMA_VERSION,
        monotonic_ns=clocks.monotonic_ns,
        wall_ns=clocks.wall_ns,
    )
    number = "" if process_index is None else f"-{process_index}"
    path = folder / f"{role}{number}-{segment_id.hex()[:8]}{SEGMENT_SUFFIX}"
    return BackgroundWriter(SegmentWriter(path, header, sync=sync))
