"""Starting the processes of a measurement from llem's own modules, so that none outlives its parent."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from llem.errors import INTERNAL_STATUS, LlemError
from llem.measure import stop
from llem.measure.channel import Channel, PeerGoneError
from llem.measure.messages import ReportFailure
from llem.measure.stop import StoppedError
from llem.parent_death import die_with_parent
from llem_events import LogError
from llem_events.cleaning import clean_text

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
    channels: Sequence[Channel] = (),
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
    with stop.held_back():
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


def live(life: Callable[[Channel, Channel], None]) -> int:
    """The whole life of a child with a channel to the supervisor and one to its twin; returns its exit status.

    The one place that catches everything, because nobody sees a child's screen: the supervisor hears of it.
    """
    supervisor, twin = _inherit(sys.argv)
    try:
        life(supervisor, twin)
    except (PeerGoneError, StoppedError):
        return 0
    except (LlemError, LogError) as error:
        _report(supervisor, error, exit_status=error.exit_status if isinstance(error, LlemError) else 2)
        return 1
    except (OSError, MemoryError) as error:
        _report(supervisor, error, exit_status=1)
        return 1
    except Exception as error:
        _report(supervisor, error, exit_status=INTERNAL_STATUS)
        raise
    return 0


def _report(supervisor: Channel, error: Exception, *, exit_status: int) -> None:
    """One of our errors says all in its text; of another, the type is half of what is known."""
    name = type(error).__name__
    said = str(error) if isinstance(error, LlemError | LogError) else f"{name}: {error}"
    text = clean_text(said[:_TEXT_CHARACTERS])
    with contextlib.suppress(PeerGoneError):
        supervisor.send(ReportFailure(error_type=name, text=text, exit_status=exit_status))


def _inherit(argv: Sequence[str]) -> list[Channel]:
    """Tie our life to the parent's, and take the channels named in argv."""
    parent_pid, *fds = map(int, argv[1:])
    die_with_parent(parent_pid)
    return [Channel.inherited(fd) for fd in fds]
