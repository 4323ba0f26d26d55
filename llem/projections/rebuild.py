"""Building the projection anew: a fresh file beside the old one, then swapped in, so that open readers keep theirs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llem.projections import database
from llem.projections.apply import Applied, apply_experiments
from llem.projections.schema import create_tables
from llem.store import Store

SCRATCH_PREFIX = "projections-"


def build_and_swap(store: Store, *, salvage: bool) -> Applied:
    """Build the tables from the log and put them in the place of the old ones. The caller holds the writer lock."""
    with scratch_folder(store) as scratch:
        fresh = scratch / store.projections_path.name
        applied = build(store, fresh, salvage=salvage)
        swap(store, fresh)
    return applied


def build(store: Store, path: Path, *, salvage: bool) -> Applied:
    """All tables from the log into a new file."""
    with database.create(path) as connection:
        create_tables(connection)
        return apply_experiments(store, connection, salvage=salvage)


@contextmanager
def scratch_folder(store: Store) -> Iterator[Path]:
    """A folder of one's own within the store, removed afterwards. The caller holds the writer lock."""
    for leftover in store.path.glob(f"{SCRATCH_PREFIX}*.tmp"):
        shutil.rmtree(leftover)  # of a crash: nobody else builds while the lock is held
    scratch = Path(tempfile.mkdtemp(dir=store.path, prefix=SCRATCH_PREFIX, suffix=".tmp"))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def swap(store: Store, fresh: Path) -> None:
    """Put a finished file in the place of the old one, durably."""
    _sync(fresh)
    store.projections_path.with_name(f"{store.projections_path.name}.wal").unlink(missing_ok=True)
    fresh.replace(store.projections_path)
    _sync(store.path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
