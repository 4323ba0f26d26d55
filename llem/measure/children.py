"""Starting the processes of a measurement so that none outlives its parent, and how a wish to stop reaches them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Protocol

from llem.errors import INTERNAL_STATUS, LlemError
from llem.measure.messages import Channel, PeerGoneError, ReportFailure
from llem.parent_death import die_with_parent
from llem_events import LogError
from llem_events.cleaning import clean_text

# Of a person, a closed terminal, systemd, Slurm (which sends what its --signal names) and the limits of a shell.
STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)
# `timeout` signals its child and then its whole group, a terminal its group and the shell the same; a person who means
# a second signal takes longer.
SAME_WISH_S = 1.0


class HasFileno(Protocol):
    """An end of a socket that a child inherits."""

    def fileno(self) -> int: ...


Handler = Callable[[int, types.FrameType | None], None]
KILL_LIMIT_S = 2.0  # a process that hangs inside a driver outlives even SIGKILL until the driver lets go
_TAIL_BYTES = 4000
_TEXT_CHARACTERS = 4000  # of an error: a message has to fit into its channel


@dataclass
class Child:
    """A running child, our end of its channel, and what it printed on stderr."""

    process: subprocess.Popen[bytes]
    channel: Channel
    stderr: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self, *, timeout_s: float) -> int:
        """Wait, then kill; returns the exit status, negative for a signal."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self._kill()
        finally:
            self.channel.close()

    def _kill(self) -> int:
        self.process.kill()
        try:
            return self.process.wait(KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL

    def stderr_tail(self) -> str:
        """The last few thousand characters that the child printed on stderr."""
        size = self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, size - _TAIL_BYTES))
        return self.stderr.read().decode(errors="replace").strip()


def start(
    module: str,
    *,
    channels: Sequence[HasFileno] = (),
    environment: Mapping[str, str] | None = None,
    own_group: bool = True,
) -> Child:
    """Start `python -m module` with a channel to us, and further channels after it, as file descriptors in argv.

    In a process group of its own, a Ctrl-C at the terminal reaches only the supervisor. Stop signals wait in the child until
    it asks for them (`StopFlag`); a sampler never does, so that it ends by its channel alone.
    """
    ours, theirs = Channel.pair()
    fds = [theirs.fileno(), *(channel.fileno() for channel in channels)]
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as the child runs
    with held_back():
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid()), *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL if own_group else None,
            stdout=subprocess.DEVNULL if own_group else None,
            stderr=stderr if own_group else None,
            env={**os.environ, **(environment or {})},
            process_group=0 if own_group else None,
        )
    theirs.close()
    return Child(process, ours, stderr)


def live(life: Callable[..., None]) -> int:
    """The whole life of a child with a channel to its parent and those that it was given beside; returns its exit status.

    The one place that catches everything, because nobody sees a child's screen: its parent hears of it.
    """
    parent, *others = _inherit(sys.argv)
    try:
        life(parent, *others)
    except (PeerGoneError, StoppedError):
        return 0
    except (LlemError, LogError) as error:
        _report(parent, error, exit_status=error.exit_status if isinstance(error, LlemError) else 2)
        return 1
    except (OSError, MemoryError) as error:
        _report(parent, error, exit_status=1)
        return 1
    except Exception as error:
        _report(parent, error, exit_status=INTERNAL_STATUS)
        raise
    return 0


def _report(parent: Channel, error: Exception, *, exit_status: int) -> None:
    """One of our errors says all in its text; of another, the type is half of what is known."""
    name = type(error).__name__
    said = str(error) if isinstance(error, LlemError | LogError) else f"{name}: {error}"
    text = clean_text(said[:_TEXT_CHARACTERS])
    with contextlib.suppress(PeerGoneError):
        parent.send(ReportFailure(error_type=name, text=text, exit_status=exit_status))


def _inherit(argv: Sequence[str]) -> list[Channel]:
    """Tie our life to the parent's, and take the channels named in argv."""
    parent_pid, *fds = map(int, argv[1:])
    die_with_parent(parent_pid)
    return [Channel.inherited(fd) for fd in fds]


def heed(handler: Handler) -> dict[signal.Signals, object]:
    """Call `handler` for every stop signal but those ignored already, as nohup ignores SIGHUP; returns what was before."""
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def restore(before: dict[signal.Signals, object]) -> None:
    """Undo `heed`."""
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait; a child started in here has them wait until it asks for them, however long its imports take."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """What has waited since the start of this process arrives now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


class StoppedError(Exception):
    """Told to stop before anything was measured."""


class StopFlag:
    """Set by any stop signal, for as long as the process runs; `tell` hears the name of the first."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.is_set = False
        self._tell = tell
        heed(self._set)
        let_through()

    def _set(self, number: int, frame: types.FrameType | None) -> None:
        if not self.is_set:
            self.is_set = True
            self._tell(signal.Signals(number).name)

    def __call__(self) -> bool:
        return self.is_set

    def sleep(self, duration_s: float) -> None:
        """Sleep, no longer than until the stop."""
        deadline = time.monotonic() + duration_s
        while not self.is_set and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))


class Interruptions:
    """Stop signals of the supervisor: before anything has started one ends it; then the first asks the workers to stop, a second kills them."""

    def __init__(self) -> None:
        self.is_measuring = False
        self.cause: str | None = None
        self._own = 0
        self._counted_s = 0.0

    def __enter__(self) -> "Interruptions":
        self._before = heed(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._before)

    @property
    def level(self) -> int:
        """0: go on; 1: stop; 2: kill."""
        return max(min(self._own, 2), int(self.cause is not None))

    def hear_of(self, name: str) -> None:
        """A worker got a signal of its own."""
        self.cause = self.cause or name

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if not self.is_measuring:
            raise KeyboardInterrupt
        now_s = time.monotonic()
        if self._own == 0 or now_s - self._counted_s >= SAME_WISH_S:
            self._own += 1
            self._counted_s = now_s
        self.hear_of(signal.Signals(number).name)
