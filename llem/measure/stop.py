"""The wish to stop: which signals mean it, how a process hears of it, and how none is lost while a child starts."""

import signal
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

Handler = Callable[[int, types.FrameType | None], None]


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
