"""Runs many commands of llem one after another in one process, as a program: argument lists as JSON on stdin, what came of them on stdout."""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from llem.cli import main


class Done(NamedTuple):
    """A command, its exit status and what it said; status -1 where an exception came out of it."""

    arguments: list[str]
    status: int
    out: str
    error: str


def run_all(commands: Sequence[Sequence[str]]) -> list[Done]:
    """Every command by the real program's own entry point, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.projections.commands"],
        input=json.dumps([list(command) for command in commands]),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [Done(*fields) for fields in json.loads(done.stdout)]


@contextmanager
def _streams_into(out: Path, error: Path) -> Iterator[None]:
    """Standard output and error of the process, as files."""
    kept = [os.dup(number) for number in (1, 2)]
    for number, path in ((1, out), (2, error)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    try:
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _run(arguments: list[str], folder: Path) -> Done:
    out, error = folder / "out", folder / "error"
    with _streams_into(out, error):
        try:
            main(arguments)
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:  # noqa: BLE001 -- what comes out of a command is what the test looks at
            os.write(2, traceback.format_exc().encode())
            status = -1
    return Done(arguments, status, out.read_text(errors="replace"), error.read_text(errors="replace"))


if __name__ == "__main__":
    commands = json.load(sys.stdin)
    report = os.dup(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = [_run(arguments, Path(scratch)) for arguments in commands]
    with os.fdopen(report, "w") as stream:
        json.dump(found, stream)
