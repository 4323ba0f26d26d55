"""The progress line on stderr: drawn over itself twice a second on a terminal, written now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llem.cli import console
from llem.measure.messages import MEASURING

if TYPE_CHECKING:
    from llem.measure.supervisor import Progress

REDRAW_S = 0.5  # what a person can follow; each redraw costs CPU time beside a measurement
WRITE_S = 5.0  # between two lines about the same work in a pipe
PATIENCE_S = 1.0  # work that is done sooner shows no line
ERASE = "\r\x1b[K"
SPINNER = "|/-\\"
KB, MB = 10**3, 10**6


class StatusLine:
    """One line on a terminal that is drawn over itself; elsewhere a line for each stage, and for its figures every `write_s`."""

    def __init__(self, *, write_s: float = float("inf")) -> None:
        self._is_live = console.can_be_drawn_over(sys.stderr)
        self._wait_s = REDRAW_S if self._is_live else write_s
        self._started = time.monotonic()
        self._shown_at = float("-inf")
        self._stage = ""
        self._redraws = 0

    def show(self, stage: str, *, detail: str = "", figures: str = "") -> None:
        """Show the stage, unless the last line is too young; a new stage never waits. Only a terminal gets the figures."""
        now = time.monotonic()
        if stage == self._stage and now - self._shown_at < self._wait_s:
            return
        self._stage, self._shown_at = stage, now
        if self._is_live:
            self._draw("  ".join(filter(None, (stage, figures, detail))), now - self._started)
        else:
            console.note(f"llem: {stage}: {detail}" if detail else f"llem: {stage}")

    def erase(self) -> None:
        """Leave nothing behind on a terminal."""
        if self._redraws:
            self._redraws = 0
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def _draw(self, line: str, elapsed_s: float) -> None:
        self._redraws += 1
        minutes, seconds = divmod(int(elapsed_s), 60)
        mark = SPINNER[self._redraws % len(SPINNER)]
        text = console.on_one_line(f"{mark} {minutes}:{seconds:02d}  {line}")
        columns = console.columns_of(sys.stderr) - 1
        sys.stderr.write(ERASE + console.clipped(text, columns, sys.stderr))
        sys.stderr.flush()


class MeasurementLine:
    """What a measurement is doing now."""

    def __init__(self, line: StatusLine | None) -> None:
        self._line = line

    def update(self, progress: "Progress") -> None:
        """Show the stage, and on a terminal what has come of it."""
        if self._line is not None:
            self._line.show(progress.stage, detail=progress.detail, figures=_figures(progress))


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[MeasurementLine]:
    """The line of a measurement for as long as the body runs; none when `quiet`."""
    line = None if quiet or console.is_quiet() else StatusLine()
    try:
        yield MeasurementLine(line)
    finally:
        if line is not None:
            line.erase()


class Amounts(Protocol):
    """So many of so many units of some work are done."""

    @property
    def work(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def unit(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Work:
    """Some work of the command line's own."""

    work: str
    done: int
    total: int
    unit: str


class WorkLine:
    """How far some work has come; elsewhere than on a terminal a line every few seconds."""

    def __init__(self) -> None:
        self._line = StatusLine(write_s=WRITE_S)
        self._lock = threading.Lock()  # a step that takes long is shown by a thread of its own
        self._patience: threading.Timer | None = None
        self._newest: Amounts | None = None
        self._is_shown = False

    def update(self, progress: Amounts) -> None:
        """Show it, once a person may begin to wonder; on a terminal also where nothing more is heard of it until then."""
        with self._lock:
            self._newest = progress
            if self._patience is None:
                self._patience = threading.Timer(PATIENCE_S, self._begin)
                self._patience.daemon = True
                self._patience.start()
            self._show()

    def _begin(self) -> None:
        with self._lock:
            self._is_shown = True
            if console.can_be_drawn_over(sys.stderr):
                self._show()

    def _show(self) -> None:
        if self._is_shown and self._newest is not None and not console.is_quiet():
            self._line.show(self._newest.work, detail=_amounts(self._newest))

    def note(self, text: str) -> None:
        """A line that stays, in the place of this one."""
        self.erase()
        console.note(text)

    def erase(self) -> None:
        """Leave nothing behind on a terminal, until more is heard."""
        with self._lock:
            self._newest = None
            self._line.erase()


def _amounts(progress: Amounts) -> str:
    if progress.unit == "bytes":
        size, unit = (MB, "MB") if progress.total >= MB else (KB, "kB")
        return f"{progress.done / size:,.1f} of {progress.total / size:,.1f} {unit}"
    return f"{progress.done:,} of {progress.total:,} {progress.unit}"


def _figures(progress: "Progress") -> str:
    power_is = "" if progress.power_is is None else f" {progress.power_is}"
    figures = [] if progress.power_w is None else [f"{progress.power_w:.1f} W{power_is}"]
    if progress.stage == MEASURING and progress.tokens_per_second is not None:
        rates = f"{progress.output_tokens_per_second:,.0f} output tokens/s, {progress.tokens_per_second:,.0f} all tokens/s"
        figures += [rates, f"{progress.requests:,} requests"]
    return "  ".join(figures)
