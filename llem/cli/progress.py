"""The progress line of a measurement: stage, time, tokens and power, on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from llem.measure.supervisor import Progress


class ProgressLine:
    """Shows the latest Progress: a live line on a terminal, one line per stage elsewhere."""

    def __init__(self, bar: Bar | None) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", figures="") if bar else None
        self._stage = ""

    def update(self, progress: Progress) -> None:
        """Show what the experiment is doing now."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=progress.stage, figures=_figures(progress))
        elif progress.stage != self._stage:
            sys.stderr.write(f"llem: {progress.stage}\n")
        self._stage = progress.stage


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[ProgressLine]:
    """A progress line for as long as the body runs; on stderr, and not at all when `quiet`."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield ProgressLine(None)
        return
    with Bar(
        SpinnerColumn(),
        TextColumn("{task.description:<15}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        transient=True,
    ) as bar:
        yield ProgressLine(bar)


def _figures(progress: Progress) -> str:
    power = "" if progress.power_w is None else f"{progress.power_w:8.1f} W"
    rate = (
        ""
        if progress.tokens_per_second is None
        else f"{progress.tokens_per_second:9.1f} tokens/s  {progress.requests} requests"
    )
    return f"{power}  {rate}"
