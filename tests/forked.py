"""llem without what its start costs: one process has loaded all of it, and every command is a fork of that process.

What belongs to a program's start (Python's own variables, what is loaded when, limits that a shell sets) is tested with the real one.
"""

import fcntl
import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import termios
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import NamedTuple, NoReturn

from llem.cli import COMMANDS, main
from llem.parent_death import die_with_parent

ROOT = Path(__file__).parents[1]
READ_AT_THE_START = ("PYTHON", "LD_")
Streams = tuple[int, int, int]


class Job(NamedTuple):
    """A command, and where it runs."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


class ForkedLlem:
    """Runs commands one after another; its process starts with the first one."""

    def __init__(self) -> None:
        self._jobs: Connection | None = None

    def run(
        self, arguments: Sequence[object], *, environment: Mapping[str, str], folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one to its end, as subprocess.run does."""
        reader, writer = os.pipe()
        with tempfile.TemporaryFile("w+") as errors, open(os.devnull) as nothing, open(reader) as output:
            streams = (nothing.fileno(), writer, errors.fileno())
            self.start(arguments, streams=streams, environment=environment, folder=folder)
            os.close(writer)
            written, status = output.read(), self.status()
            errors.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, written, errors.read())

    def start(
        self,
        arguments: Sequence[object],
        *,
        streams: Streams,
        environment: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        """Start one with these descriptors as its standard streams; `status` is to be asked before the next one starts."""
        for name, value in environment.items():
            if name.startswith(READ_AT_THE_START) and value != os.environ.get(name):
                raise ValueError(f"{name} is read when a program starts: this command needs a whole process")
        jobs = self._started()
        jobs.send(Job([str(word) for word in arguments], dict(environment), str(folder or Path.cwd())))
        for stream in streams:
            send_handle(jobs, stream, self._server.pid)

    def status(self) -> int:
        """The exit status of what was started, when it has ended."""
        try:
            status: int = self._started().recv()
        except BaseException:
            self.close()  # a test that waits no longer: what it started ends, and the next one gets another process
            raise
        return status

    def close(self) -> None:
        """End the process, and what still runs below it."""
        if self._jobs is not None:
            self._server.kill()
            self._server.wait()
            self._jobs.close()
            self._jobs = None

    def _started(self) -> Connection:
        if self._jobs is None:
            self._jobs, theirs = multiprocessing.Pipe()
            with theirs:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    cwd=ROOT,
                    start_new_session=True,
                )
        return self._jobs


def _serve(jobs: Connection) -> None:
    """Run what is asked for, until nobody asks any more."""
    server_pid = os.getpid()
    while True:
        try:
            job = Job(*jobs.recv())
        except EOFError:
            return
        streams = [recv_handle(jobs) for _ in range(3)]
        if (pid := os.fork()) == 0:
            die_with_parent(server_pid)
            jobs.close()
            _be_llem(job, streams)
        for stream in streams:
            os.close(stream)
        jobs.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _be_llem(job: Job, streams: Sequence[int]) -> NoReturn:
    """The real program, from its first line on."""
    status: object = 1
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(job.folder)
        os.environ.clear()
        os.environ.update(job.environment)
        main(job.arguments)
    except SystemExit as ended:
        status = 0 if ended.code is None else ended.code
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    for place, _ in COMMANDS.values():
        importlib.import_module(place.partition(":")[0])
    gc.freeze()
    _serve(Connection(int(sys.argv[1])))
