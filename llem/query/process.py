"""The parent's side of a query: starts the child process, reads its rows, kills it when its time is up."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, assert_never

import msgspec

from llem.errors import LlemError, QueryError
from llem.factors import Factors, factors_for
from llem.process_tree import ending_signal
from llem.query import messages
from llem.query.messages import (
    LENGTH,
    Answer,
    Column,
    Columns,
    Done,
    Failed,
    Job,
    Notice,
    Progress,
    Ready,
    Rows,
)
from llem.store import Store

Parameter = str | int | float | bool | None
CHUNK_BYTES = 2**20
# Variables that the child gets, and nothing else: no secrets.
PASSED_ON = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "TZ")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a query may use before it is killed; `timeout_s` counts only while it works, not while a reader is slow."""

    timeout_s: float = 60.0
    memory_bytes: int = 4 * 2**30

    @property
    def cpu_s(self) -> int:
        """Processor seconds on all cores that it may use: a second line, in case this process hangs."""
        return int(self.timeout_s * len(os.sched_getaffinity(0))) + 2


class ResultStream:
    """Columns and rows of a running query; read `batches` once, then see `truncated`."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        limits: Limits,
        *,
        notify: Callable[[str], None],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.truncated = False
        self._columns: list[Column] | None = None
        self._child, self._limits = child, limits
        self._notify, self._on_progress = notify, on_progress
        self._left_s: float | None = None  # None: still catching up, which takes as long as it takes
        self._buffer = bytearray()

    @property
    def columns(self) -> list[Column]:
        """Columns of the result; waits until the query has been understood. Raises QueryError."""
        while self._columns is None:
            self._take(self._receive())
        return self._columns

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """The rows, some at a time. Raises QueryError."""
        while not isinstance(answer := self._receive(), Done):
            if isinstance(answer, Rows):
                yield answer.rows
            else:
                self._take(answer)
        self.truncated = answer.truncated

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, one at a time. Raises QueryError."""
        for batch in self.batches():
            yield from batch

    def finish(self) -> None:
        """Wait for the end of a result that the child itself writes. Raises QueryError."""
        for _ in self.batches():
            pass

    def _take(self, answer: Answer) -> None:
        match answer:
            case Notice():
                self._notify(answer.text)
            case Progress():
                self._on_progress(answer)
            case Ready():
                self._left_s = self._limits.timeout_s
            case Failed():
                raise _failure(answer)
            case Columns():
                self._columns = answer.columns
            case Rows() | Done():
                raise QueryError("the query's process answered out of turn")
            case _:
                assert_never(answer)

    def _receive(self) -> Answer:
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > messages.MAX_MESSAGE_BYTES:
            raise QueryError("the query's process sent too large a message", found=f"{length} bytes")
        try:
            return messages.unpack_answer(self._read(length))
        except msgspec.MsgspecError as error:
            raise QueryError(f"the query's process sent something else than an answer: {error}") from error

    def _read(self, length: int) -> bytes:
        assert self._child.stdout is not None
        fd = self._child.stdout.fileno()
        while len(self._buffer) < length:
            self._wait_for(fd)
            chunk = os.read(fd, CHUNK_BYTES)
            if not chunk:
                raise self._death()
            self._buffer += chunk
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _wait_for(self, fd: int) -> None:
        started = time.monotonic()
        readable, _, _ = select.select([fd], [], [], self._left_s)
        if not readable:
            raise self._too_slow()
        if self._left_s is not None:
            self._left_s = max(0.0, self._left_s - (time.monotonic() - started))

    def _too_slow(self) -> QueryError:
        return QueryError(
            "the query took too long and was stopped",
            expected=f"at most {self._limits.timeout_s:g} s",
            hint="allow more with --timeout",
        )

    def _death(self) -> QueryError:
        status = self._child.wait()
        if status == -signal.SIGXCPU:
            return self._too_slow()
        ending = ending_signal(status)
        if ending is None:
            return QueryError("the query's process could not start", found=f"exit status {status}")
        return QueryError(
            "the query's process ended without an answer",
            found=ending,
            hint="it may have run out of memory: aggregate or filter earlier",
        )


def _failure(answer: Failed) -> LlemError:
    error = QueryError(answer.what, found=answer.found, expected=answer.expected, hint=answer.hint)
    error.exit_status = answer.exit_status
    return error


@contextmanager
def running(
    sql: str,
    *,
    store: Store,
    parameters: Mapping[str, Parameter] | None = None,
    limit: int | None = None,
    parquet_path: Path | None = None,
    sealed: Path | None = None,
    plan_only: bool = False,
    unsafe: bool = False,
    factors: Path | None = None,
    limits: Limits | None = None,
    notify: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[ResultStream]:
    """Run one statement in a child process, which does not outlive the block; `factors` is a file of them. Raises QueryError."""
    limits = limits or Limits()
    job = Job(
        parent_pid=os.getpid(),
        store=str(store.path.resolve()),
        sql=sql,
        parameters=dict(parameters or {}),
        limit=limit,
        parquet_path=str(parquet_path.resolve()) if parquet_path else None,
        sealed=str(sealed) if sealed else None,
        plan_only=plan_only,
        unsafe=unsafe,
        factors=_factors(sql, store, factors),
        memory_bytes=limits.memory_bytes,
        cpu_s=limits.cpu_s,
    )
    child = _start(job)
    try:
        yield ResultStream(child, limits, notify=notify, on_progress=on_progress)
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _factors(sql: str, store: Store, given: Path | None) -> Factors | None:
    """Those of a file beside the store only where the SQL asks for them: nothing else depends on it."""
    is_asked = re.search("footprint|factors", sql, re.IGNORECASE) is not None
    return factors_for(store.path, given) if given is not None or is_asked else None


def _start(job: Job) -> subprocess.Popen[bytes]:
    environment = dict(os.environ) if job.unsafe else {n: os.environ[n] for n in PASSED_ON if n in os.environ}
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "llem.query.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        process_group=0,  # an interrupt from the keyboard reaches the parent alone, which then ends its child
    )
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # a child that could not even start: reading its answer says so
        child.stdin.write(messages.pack(job))
        child.stdin.flush()
    return child
