"""Runs llem's command line, in this process or in one of its own, and judges what comes of it."""

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from llem.cli import main
from tests.conftest import LLEM

STATUSES = frozenset({0, 1, 2, 3})
LIMIT_S = 120


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    arguments: tuple[str, ...]
    status: int
    out: bytes
    err: bytes

    def complaint(self) -> str | None:
        """What is wrong with how it ended, if anything is."""
        said = self.err.decode(errors="replace")
        if "internal error" in said or "Traceback" in said or self.status not in STATUSES:
            return f"status {self.status} of {self.arguments!r}: {said[-1500:]}"
        if self.status and not said.strip() and not self.out.strip():
            return f"status {self.status} of {self.arguments!r} without a word"
        return None


def call(arguments: Sequence[str], *, folder: Path, stdin: bytes = b"") -> Ended:
    """Run a command in this process, with the descriptors of the standard streams turned to files."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        with _inside(folder), _streams(given.fileno(), out.fileno(), err.fileno()), _limited():
            status = _status(arguments)
        out.seek(0)
        err.seek(0)
        return Ended(tuple(arguments), status, out.read(), err.read())


def start(arguments: Sequence[str], *, folder: Path, stdin: bytes = b"") -> Ended:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [LLEM, *map(os.fsencode, arguments)],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    return Ended(tuple(arguments), done.returncode, done.stdout, done.stderr)


def _status(arguments: Sequence[str]) -> int:
    try:
        main(list(arguments))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _streams(*descriptors: int) -> Iterator[None]:
    kept, streams = [os.dup(number) for number in range(3)], (sys.stdin, sys.stdout, sys.stderr)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def _limited() -> Iterator[None]:
    """A command that hangs becomes an error."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
