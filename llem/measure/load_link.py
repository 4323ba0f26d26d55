"""The load process as its worker sees it: started, told what to offer, heard, ended."""

import contextlib
from typing import Literal

from llem.errors import INTERNAL_STATUS, MeasureError
from llem.measure import children
from llem.measure.messages import (
    EndLoad,
    Finish,
    LoadDone,
    LoadOffered,
    LoadProgress,
    LoadReady,
    LoadSetup,
    LoadStarted,
    PeerGoneError,
    ReportFailure,
    StartLoad,
)
from llem.servers.process import ended_with

READY_LIMIT_S = 60.0  # a file of prompts may be large
END_LIMIT_S = 10.0
News = LoadStarted | LoadProgress | LoadOffered | LoadDone


class LoadFailedError(MeasureError):
    """The load process reported why it ends, or died; `exit_status` is what llem should end with."""

    def __init__(self, text: str, *, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class LoadLink:
    """Starts a load process and waits until it has its prompts.

    `start` a window, `receive` until `LoadDone`, then the next; `end` ends a window early; `close` ends the process, which seals its segment.
    """

    def __init__(self, setup: LoadSetup) -> None:
        """Raises LoadFailedError, with status 2 for what the plan asks and cannot be had."""
        self._child = children.start("llem.measure.load_process")
        try:
            self._child.channel.send(setup)
            self.ready = self._await_ready()
        except PeerGoneError:
            error = self._died()
            self.close()
            raise error from None
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the load process."""
        return self._child.pid

    def fileno(self) -> int:
        """For select, beside other channels."""
        return self._child.channel.fileno()

    def start(self, window: Literal["warmup", "measurement"]) -> None:
        """Offer the plan's load; `LoadStarted` answers."""
        self._tell(StartLoad(window))

    def end(self, *, drain: bool) -> None:
        """Send no more; `LoadOffered` and, once the last request has ended, `LoadDone` answer."""
        self._tell(EndLoad(drain))

    def receive(self, *, timeout_s: float | None = None) -> News | None:
        """The next news, None when `timeout_s` has passed. Raises LoadFailedError."""
        try:
            message = self._child.channel.receive(timeout_s=timeout_s)
        except PeerGoneError:
            raise self._died() from None
        if isinstance(message, ReportFailure):
            raise LoadFailedError(message.text, exit_status=message.exit_status)
        assert message is None or isinstance(message, News)
        return message

    def close(self) -> None:
        """Let it seal its segment and end, and kill it where it does not; may be called twice."""
        with contextlib.suppress(PeerGoneError, OSError):
            self._child.channel.send(Finish())
        self._child.end(timeout_s=END_LIMIT_S)
        self._child.stderr.close()

    def _await_ready(self) -> LoadReady:
        message = self._child.channel.receive(timeout_s=READY_LIMIT_S)
        if isinstance(message, ReportFailure):
            raise LoadFailedError(message.text, exit_status=message.exit_status)
        if not isinstance(message, LoadReady):
            text = f"the load process was not ready within {READY_LIMIT_S:g} s"
            raise LoadFailedError(text, exit_status=2)
        return message

    def _tell(self, message: StartLoad | EndLoad) -> None:
        try:
            self._child.channel.send(message)
        except PeerGoneError:
            raise self._died() from None

    def _died(self) -> LoadFailedError:
        status = self._child.end(timeout_s=END_LIMIT_S)
        last_line = self._child.stderr_tail().rpartition("\n")[2]
        text = "; ".join(filter(None, (f"the load process ended: {ended_with(status)}", last_line)))
        return LoadFailedError(text, exit_status=1 if status < 0 else INTERNAL_STATUS)
