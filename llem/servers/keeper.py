"""The keeper: a small process between us and a server, so that nothing of the server outlives us, however we end.

It adopts whatever the server leaves behind, and ends all of it when it is told to, or when the last of those who hold the other end of its
socket is gone. Where the keeper itself is killed, the kernel ends the server with it.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

from llem.errors import MeasureError
from llem.parent_death import adopt_orphans
from llem.process_tree import descendants, name_of_living

GRACE_S = 2.0  # for a server whose measurement is gone
KILL_LIMIT_S = 5.0  # what hangs inside a driver outlives even SIGKILL until the driver lets go
POLL_S = 0.05
MAX_MESSAGE_BYTES = 2**18
_ANSWER_S = 10.0


class Order(msgspec.Struct, frozen=True, tag=True):
    """What a keeper can be told; it answers each with a Kept."""


class Launch(Order, frozen=True, kw_only=True):
    """Start this program; its output goes to the end of a file."""

    argv: list[str]
    environment: dict[str, str]
    output: str


class End(Order, frozen=True, kw_only=True):
    """Ask the program and all below it to end, and kill what is left after `grace_s`."""

    grace_s: float


class Ask(Order, frozen=True):
    """How is it?"""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How the program is: `pid` is that of the last one started, `status` what it ended with, negative for a signal."""

    pid: int | None = None
    status: int | None = None
    problem: str | None = None  # why it could not be started

    @property
    def is_running(self) -> bool:
        return self.pid is not None and self.status is None


_orders = msgspec.msgpack.Decoder(Launch | End | Ask)


class Keeper:
    """Our end of a keeper's socket; several processes may hold it, and give one order at a time."""

    def __init__(self, end: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self._socket, self._process = end, process

    @classmethod
    def start(cls) -> "Keeper":
        """A new keeper, in a session of its own, so that no signal of a terminal reaches it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "llem.servers.keeper", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(ours, process)

    @classmethod
    def inherited(cls, fd: int) -> "Keeper":
        """The end that a parent passed as a file descriptor."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd))

    @property
    def pid(self) -> int | None:
        """Of the keeper, below which the server runs; None where another process started it."""
        return self._process.pid if self._process else None

    def fileno(self) -> int:
        """To hand it on."""
        return self._socket.fileno()

    def launch(self, argv: Sequence[str], *, environment: Mapping[str, str], output: str) -> int:
        """Start a server; returns its process id. Raises MeasureError where that cannot be done."""
        kept = self._tell(Launch(argv=list(argv), environment=dict(environment), output=output))
        if kept.pid is None or kept.problem is not None:
            raise MeasureError("the server cannot be started", found=kept.problem)
        return kept.pid

    def ask(self) -> Kept:
        """How the server is."""
        return self._tell(Ask())

    def end(self, *, grace_s: float) -> Kept:
        """The server and all below it have ended when this returns."""
        return self._tell(End(grace_s=grace_s), patience_s=grace_s + KILL_LIMIT_S)

    def close(self) -> None:
        """Let go of it: when nobody else holds it, the keeper ends all that it keeps, and itself."""
        self._socket.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S + KILL_LIMIT_S)

    def _tell(self, order: Order, *, patience_s: float = 0.0) -> Kept:
        self._socket.settimeout(_ANSWER_S + patience_s)
        try:
            self._socket.send(msgspec.msgpack.encode(order))
            answer = self._socket.recv(MAX_MESSAGE_BYTES)
        except OSError as error:
            raise _gone(error) from error
        if not answer:
            raise _gone(None)
        return msgspec.msgpack.decode(answer, type=Kept)


def _gone(error: OSError | None) -> MeasureError:
    return MeasureError("the keeper of the server is gone", found=error, hint="was it killed?")


class _Keeping:
    """The keeper's own life."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._server: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._problem: str | None = None
        self._is_told_to_end = False
        adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        # what starts us holds signals back, and a server has to hear them
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def run(self) -> None:
        """Until nobody holds the other end, or a signal says so."""
        while not self._is_told_to_end:
            ready, _, _ = select.select([self._socket], [], [], 0.5)
            self._reap()
            if ready and not self._obey():
                break
        self._end(GRACE_S)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self._is_told_to_end = True

    def _obey(self) -> bool:
        """Whether there was an order."""
        packet = self._socket.recv(MAX_MESSAGE_BYTES)
        if not packet:
            return False
        match _orders.decode(packet):
            case Launch() as launch:
                self._launch(launch)
            case End(grace_s=grace_s):
                self._end(grace_s)
        with contextlib.suppress(OSError):
            self._socket.send(msgspec.msgpack.encode(self._kept()))
        return True

    def _kept(self) -> Kept:
        return Kept(
            pid=self._server.pid if self._server else None, status=self._status, problem=self._problem
        )

    def _launch(self, launch: Launch) -> None:
        self._end(GRACE_S)
        self._server = self._status = self._problem = None
        command = [sys.executable, "-m", "llem.parent_death", str(os.getpid()), *launch.argv]
        try:
            with _appending(launch.output) as output:
                self._server = subprocess.Popen(
                    command,
                    env=launch.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
        except OSError as error:
            self._problem = str(error)

    def _reap(self) -> None:
        """Wait for what has ended: the server, and what it left behind."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if self._server is not None and ended[0] == self._server.pid:
                    self._status = os.waitstatus_to_exitcode(ended[1])
                    self._server.returncode = self._status

    def _end(self, grace_s: float) -> None:
        deadline = time.monotonic() + grace_s
        self._signal(signal.SIGTERM)
        while self._living() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        deadline = time.monotonic() + KILL_LIMIT_S
        while self._living() and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)
            time.sleep(POLL_S)
        # what has just ended is none of the living, and was not waited for
        self._reap()

    def _signal(self, number: signal.Signals) -> None:
        """To the server's group, and to what below us has left it."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._server.pid, number)
        for pid in self._living():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._server is None or os.getpgid(pid) != self._server.pid:
                    os.kill(pid, number)

    def _living(self) -> set[int]:
        self._reap()
        return {pid for pid in descendants(os.getpid()) - {os.getpid()} if name_of_living(pid)}


def _appending(path: str) -> IO[bytes]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


if __name__ == "__main__":
    _Keeping(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=int(sys.argv[1]))).run()
