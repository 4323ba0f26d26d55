"""One experiment cannot hurt another: which failures make an experiment damaged, and with what reason."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import duckdb

from llem.projections.database import Tables

LOG_TABLES = ("events", "samples", "sample_pieces", "requests")
INTERNAL_TABLES = ("folders", "sample_pieces")  # what the making of the others needs, and nobody asks for
# Before the name of a table that replaces another once it is whole, or of what a crash left of it.
NEW = "new_"
UNUSABLE = "unusable"
MAX_REASON = 300
# Of the disk, the machine or the connection: they say nothing of a log, and would make every experiment damaged.
_NOT_OF_THE_LOG = (
    OSError,
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.ConnectionException,
    duckdb.InterruptException,
    duckdb.TransactionException,
)
TOKEN_BYTES, SAMPLE_BYTES = 40, 20  # of memory while results are derived
_ALWAYS_THERE_BYTES = 256 * 2**20


class MisfitError(Exception):
    """A log that verifies, but says what cannot be; its text is for people."""


def reason_against(error: Exception) -> str:
    """Why an experiment has no tables, in one line. Raises the error itself where it is not the log's."""
    match error:
        case MemoryError() | duckdb.OutOfMemoryException():
            return f"too large to derive here: {_line(error)}".removesuffix(": ")
        case MisfitError():
            return _line(error)
        case _ if isinstance(error, _NOT_OF_THE_LOG):
            raise error
        case duckdb.Error():
            return f"a value that no column holds: {_line(error)}"
        case _:
            return f"{type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\n", 1)[0].split())[:MAX_REASON]


def set_aside(tables: Tables, experiment_id: str, reason: str) -> None:
    """Leave an experiment out with its reason: nothing of its log stays but its checkpoints, so that it is not tried again in vain."""
    with tables.transaction():
        for table in LOG_TABLES:
            tables.delete_experiments(table, [experiment_id])
        tables.connection.execute(
            "UPDATE segments SET verdict = ?, problem = ?, skipped_bytes = 0 WHERE experiment_id = ? AND file = "
            "(SELECT min(file) FROM segments WHERE experiment_id = ? AND verdict <> 'left_out')",
            [UNUSABLE, reason, experiment_id, experiment_id],
        )


def check_memory(*, token_times: int, samples: int) -> None:
    """Raises MemoryError where deriving would take more than is free: a kernel out of memory kills without a word."""
    needed = token_times * TOKEN_BYTES + samples * SAMPLE_BYTES
    if needed > _ALWAYS_THERE_BYTES and needed > (free := min(_free_bytes())):
        raise MemoryError(f"about {needed / 2**30:.1f} GiB of memory are needed, {free / 2**30:.1f} are free")


def _free_bytes() -> Iterator[int]:
    """What is left of every limit on this process's memory."""
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.strip().isdigit() and used.strip().isdigit():
        yield int(limit) - int(used)
    pages, ceiling = _text("/proc/self/statm"), resource.getrlimit(resource.RLIMIT_AS)[0]
    if pages and ceiling != resource.RLIM_INFINITY:
        yield ceiling - int(pages.split()[0]) * resource.getpagesize()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
