"""The panel of a run that goes on: its lines from what the log has said so far, drawn over themselves on a terminal, by llem watch and by the process that measures."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, TextIO

from llem.cli import console
from llem.live.device import LiveDevice
from llem.live.run import Figures, LiveRun, Reported, RunFollower
from llem.live.study import CellSoFar, Standing
from llem.results.energy import MADE_UP
from llem.results.throttling import short_names
from llem.store import Store
from llem_events.errors import LogError

if TYPE_CHECKING:
    from llem.measure.supervisor import Progress

HEAD = 11  # columns of a line's name
REASONS = 3
CELLS = 6
SHORT_HISTORY_S = 16
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
DEFAULT_LINES = 24
BOLD, PLAIN, END_OF_LINE, END_OF_SCREEN = "\x1b[1m", "\x1b[0m", "\x1b[K", "\x1b[J"
CPU_KINDS = ("cpu_package", "dram")
REDRAW_S = 0.5


class Line(NamedTuple):
    """A name and what is said of it."""

    head: str
    text: str = ""


class OwnCost:
    """CPU time of this process from now on."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.monotonic(), time.process_time()

    def ms_per_s(self) -> float:
        """Milliseconds of CPU time in each second so far."""
        wall_s = time.monotonic() - self._wall_s
        return (time.process_time() - self._cpu_s) * 1000 / wall_s if wall_s > 0 else 0.0


def panel(
    run: LiveRun,
    *,
    standing: Standing | None = None,
    cost: OwnCost | None = None,
    lines: int = 1000,
    blocks: str = BLOCKS,
) -> list[Line]:
    """All that is known of a run, in at most so many lines if that can be done."""
    figures = run.figures()
    above = [Line(*_title(run)), Line(run.stage(), _countdown(run, figures)), *_where(run, standing)]
    below = [*_measured(run, figures), *_warmup(run), *_verdict(run, figures), *_view(run, cost)]
    for device_lines in (_device, _device_in_short):
        devices = [line for device in run.devices for line in device_lines(device, blocks)]
        if len(above) + len(devices) + len(below) + 2 <= lines:
            return [*above, *([Line(""), *devices] if devices else []), Line(""), *below]
    room = max(lines - len(above) - len(below), 1)
    if len(devices) > room:
        devices = [*devices[: room - 1], Line("", f"and {len(devices) - room + 1} more devices")]
    return [*above, *devices, *below]


def _title(run: LiveRun) -> tuple[str, str]:
    return run.experiment_id, run.plan.name or ""


def _countdown(run: LiveRun, figures: Figures | None) -> str:
    """How long the stage has lasted, and what ends it."""
    windows, workload = run.plan.windows, run.plan.workload
    match run.stage():
        case "baseline before" | "baseline server idle":
            return f"{_left(_elapsed_s(run, 'baseline'), windows.baseline_s)} of idle power"
        case "warming up":
            passed = f"{_elapsed_s(run, 'warmup'):.1f} s, at most {windows.warmup_max_s:g} s"
            return passed if run.plan.is_served else f"{passed} or {windows.warmup_max_batches} batches"
        case "measuring" if not run.is_counted():
            return f"{_elapsed_s(run, 'measurement'):.1f} s of {' '.join(run.started.command) if run.started else ''}"
        case "measuring":
            done, least = figures.requests if figures else 0, workload.requests
            until = _left(_elapsed_s(run, "measurement"), workload.min_duration_s)
            return f"{until} at least, " + (
                f"{done:,} requests" if done >= least else f"{done:,} of {least:,} requests"
            )
        case "killed":
            return f"after {_duration(run.running_s())}: nobody writes its log any more, and it says no end"
        case "interrupted" | "done":
            return f"after {_duration(run.running_s())}"
    return f"{_duration(run.running_s())} since the start"


def _elapsed_s(run: LiveRun, kind: str) -> float:
    """Of the process that is furthest behind."""
    spans = [process.elapsed_s(kind, run.now_ns()) for process in run.processes.values()]
    return min((span for span in spans if span is not None), default=0.0)


def _left(elapsed_s: float, least_s: float) -> str:
    return f"{elapsed_s:.1f} s of {least_s:g} s"


def _duration(passed_s: float) -> str:
    minutes, whole_s = divmod(int(passed_s), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{whole_s:02d}" if minutes >= 60 else f"{minutes}:{whole_s:02d}"
    )


def _where(run: LiveRun, standing: Standing | None) -> Iterator[Line]:
    process = next(iter(run.processes.values()), None)
    of = [
        *dict.fromkeys((process.model, process.engine) if process else ()),
        run.plan.load.offered if run.plan.is_served else None,
        f"{len(run.processes)} processes" if len(run.processes) > 1 else None,
        f"meter {', '.join(dict.fromkeys(device.meter for device in run.devices))}" if run.devices else None,
        f"on {run.host}" if run.host else None,
    ]
    yield Line("of", ", ".join(filter(None, of)) or "nothing is known yet")
    if standing is not None:
        left = f", about {_duration(standing.left_s)} left" if standing.left_s else ""
        yield Line("study", f"{standing.study}: {standing.cell}")
        yield Line(
            "",
            f"block {standing.block} of {standing.blocks}, {standing.runs_done} of {standing.runs} runs done{left}",
        )
        yield from _cells(standing.cells)


def _cells(cells: Sequence[CellSoFar]) -> Iterator[Line]:
    """What each costs so far; nothing before the first run of any."""
    if not any(cell.runs for cell in cells):
        return
    shown = cells if len(cells) <= CELLS else cells[: CELLS - 1]
    more = [f"and {len(cells) - len(shown)} more cells"] if len(shown) < len(cells) else []
    yield from map(Line, ["so far", *[""] * CELLS], [*map(_cell, shown), *more])


def _cell(cell: CellSoFar) -> str:
    if cell.mean is None:
        return f"{cell.cell}: no run yet"
    interval = "" if cell.low is None else f", 95 % [{cell.low:,.4g}, {cell.high:,.4g}]"
    return f"{cell.cell}: {cell.mean:,.4g} {cell.unit}{interval}, {console.counted(cell.runs, 'run')}"


def _device(device: LiveDevice, blocks: str) -> Iterator[Line]:
    """Power and state, a minute of power, and what slows it down."""
    now = device.now
    if now is None:
        yield Line(_name(device), "no sample yet")
        return
    said = [
        _watts(device),
        f"limit {now.limit_w:,.0f} W" if now.limit_w is not None else None,
        f"{now.temperature_c:.0f} C" if now.temperature_c is not None else None,
        f"{now.clock_mhz:,.0f} MHz" if now.clock_mhz is not None else None,
    ]
    yield Line(_name(device), "  ".join(filter(None, said)))
    history = device.history_w()
    if any(power is not None for power in history):
        yield Line("", sparkline(history, blocks) + f" {_highest(history):.0f} W")
    if slowed := short_names(now.reasons):
        yield Line("", f"throttled: {slowed}")


def _device_in_short(device: LiveDevice, blocks: str) -> Iterator[Line]:
    now = device.now
    if now is None:
        yield Line(_name(device), "no sample yet")
        return
    slowed = short_names(now.reasons)
    said = [
        _watts(device),
        f"{now.temperature_c:.0f} C" if now.temperature_c is not None else None,
        sparkline(device.history_w(SHORT_HISTORY_S), blocks),
        f"throttled: {slowed}" if slowed else None,
    ]
    yield Line(_name(device), "  ".join(filter(None, said)))


def _name(device: LiveDevice) -> str:
    described = device.metered.device
    name = {"gpu": "GPU", "mig": "MIG", "cpu_package": "CPU", "dram": "memory"}.get(
        described.kind, described.kind
    )
    return f"{name} {described.index}"


def _watts(device: LiveDevice) -> str:
    now, sums = device.now, device.sums()
    mean_w = sums.integrated_j / sums.covered_s if sums.covered_s > 0 else None
    source = device.metered.energy_source
    power_is = f" {source}" if source in MADE_UP else ""
    parts = [
        f"{now.power_w:,.1f} W{power_is}"
        if now is not None and now.power_w is not None
        else "power not told",
        f"mean {mean_w:,.1f}" if mean_w is not None else None,
        f"idle {device.idle_w:,.1f}" if device.idle_w is not None else None,
    ]
    return ", ".join(filter(None, parts))


def sparkline(values: Sequence[float | None], blocks: str = BLOCKS) -> str:
    """A character a value, from 0 to the highest; a space where there is none."""
    highest = _highest(values) or 1.0
    steps = len(blocks) - 1
    return "".join(
        " " if value is None else blocks[max(0, min(steps, round(value / highest * steps)))]
        for value in values
    )


def _highest(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _measured(run: LiveRun, figures: Figures | None) -> Iterator[Line]:
    """Energy, tokens and requests of the measurement."""
    if figures is None:
        yield Line("energy", "nothing is measured yet" if run.ended is None else "nothing was measured")
        return
    energy = [_joules(figures.energy_j), _above_idle(figures.above_idle_j, "J")]
    source = f" ({figures.energy_source})" if figures.energy_source else ""
    yield Line("energy", ", ".join(filter(None, energy)) + source)
    if not run.is_counted():
        yield from _reported(run.reported())
        return
    per_token = figures.energy_per_output_token_j
    if per_token is None:
        yield Line("per token", f"not known yet: {figures.output_tokens:,} output tokens")
    else:
        above = _above_idle(figures.above_idle_per_output_token_j, "J")
        yield Line("per token", ", ".join(filter(None, (f"{per_token:,.4g} J for each output token", above))))
    if figures.output_tokens_per_second is not None and figures.tokens_per_second is not None:
        rates = f"{figures.output_tokens_per_second:,.1f} output tokens/s, {figures.tokens_per_second:,.1f} all tokens/s"
        yield Line("rate", rates)
    ttft = "" if figures.ttft_p50_ms is None else f", time to first token p50 {figures.ttft_p50_ms:,.1f} ms"
    yield Line("requests", f"{figures.requests:,}, {figures.failed_requests or 'none'} failed{ttft}")


def _reported(work: Reported | None) -> Iterator[Line]:
    """What a wrapped program tells of its own."""
    if work is None:
        yield Line("tokens", "the program tells none")
        return
    if work.tokens is not None:
        said = [f"{work.tokens:,}"]
        if work.tokens_per_second is not None:
            said.append(f"{work.tokens_per_second:,.1f} tokens/s")
        if work.energy_per_token_j is not None:
            said.append(f"{work.energy_per_token_j:,.4g} J each")
        yield Line("tokens", ", ".join(said))
    if work.requests is not None:
        yield Line("requests", f"{work.requests:,}")


def _joules(energy_j: float | None) -> str:
    return "not measured" if energy_j is None else f"{energy_j:,.1f} J"


def _above_idle(figure: float | None, unit: str) -> str | None:
    return None if figure is None else f"above idle {figure:,.4g} {unit}"


def _warmup(run: LiveRun) -> Iterator[Line]:
    """Batches, and how much the last of them differ, of the process that has the fewest."""
    process = min(run.processes.values(), key=lambda each: len(each.warmup_steps_ms), default=None)
    if process is None or not process.warmup_steps_ms:
        return
    spread, steps = process.warmup_variation, len(process.warmup_steps_ms)
    said = [console.counted(steps, "span") if run.plan.is_served else f"{steps} batch{'es' * (steps > 1)}"]
    if spread is not None:
        has_converged = process.warmup is not None and process.warmup.converged
        target = warmup_target(spread, at_most=run.plan.windows.warmup_cv, has_converged=has_converged)
        said.append(f"CV {spread:.3f}, {target}")
    end = f": {process.warmup.reason}" if process.warmup is not None else ""
    yield Line("warm-up", ", ".join(said) + end)


def warmup_target(spread: float, *, at_most: float, has_converged: bool) -> str:
    """What the spread is held against: under load it may be as large as chance makes it with so few requests."""
    by_chance = has_converged and spread > at_most
    return "within chance for so few requests" if by_chance else f"target below {at_most:g}"


def _verdict(run: LiveRun, figures: Figures | None) -> Iterator[Line]:
    """What still keeps the result from being valid."""
    for failure in run.failures()[:REASONS]:
        yield Line("failed", failure)
    if figures is not None:
        yield from map(Line, ["verdict", *[""] * REASONS], _reasons(run, figures))
    if run.is_damaged:
        yield Line("damaged", "parts of the log do not verify and are left out")
    if run.warning is not None and not run.failures():
        yield Line("warning", run.warning.text)


def _reasons(run: LiveRun, figures: Figures) -> list[str]:
    texts = [reason.text for reason in run.reasons(figures)]
    if not texts:
        return ["valid so far"]
    more = [f"and {len(texts) - REASONS} more"] if len(texts) > REASONS else []
    word = "not valid" if run.ended is not None or not run.is_written else "not yet valid"
    return [f"{word}: {texts[0]}", *texts[1:REASONS], *more]


def _view(run: LiveRun, cost: OwnCost | None) -> Iterator[Line]:
    """How old the newest sample is, and what looking costs."""
    if cost is None or run.ended is not None or not run.is_written:
        return
    behind_s = run.behind_s()
    age = "no sample yet" if behind_s is None else f"newest sample {behind_s:.1f} s old"
    cpu = f"{cost.ms_per_s():.1f} ms of CPU time a second"
    is_metered = run.host == os.uname().nodename and any(
        device.metered.device.kind in CPU_KINDS for device in run.devices
    )
    yield Line(
        "this view", f"{age}; {cpu}" + (", which the meter of this CPU counts too" if is_metered else "")
    )


class Screen:
    """A terminal on which a frame is drawn over the one before."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = 0
        self._columns = 0

    @property
    def lines(self) -> int:
        """That fit, the one with the cursor left out."""
        try:
            return (os.get_terminal_size(self._out.fileno()).lines or DEFAULT_LINES) - 1
        except OSError:
            return DEFAULT_LINES - 1

    def draw(self, lines: Sequence[Line]) -> None:
        """Show a frame in the place of the last one."""
        columns = console.columns_of(self._out)
        start = "\x1b[2J\x1b[H" if self._drawn and columns != self._columns else self._up()
        rows = [row(line, columns - 1, self._out, is_bold=True) for line in lines[: self.lines]]
        self._drawn, self._columns = len(rows), columns
        self._out.write(start + "".join(f"{each}{END_OF_LINE}\n" for each in rows) + END_OF_SCREEN)
        self._out.flush()

    def erase(self) -> None:
        """Leave nothing behind."""
        self._out.write(self._up() + END_OF_SCREEN if self._drawn else "")
        self._out.flush()
        self._drawn = 0

    def _up(self) -> str:
        return f"\x1b[{self._drawn}F" if self._drawn else ""


def row(line: Line, columns: int, out: TextIO, *, is_bold: bool) -> str:
    """One row of a screen: cleaned, cut to its width, the name in bold."""
    head = console.on_one_line(line.head)
    space = " " * max(HEAD - len(head), 2) if line.text else ""
    text = console.clipped(head + space + console.on_one_line(line.text), columns, out).rstrip()
    if not is_bold or not head:
        return text
    return f"{BOLD}{text[: len(head)]}{PLAIN}{text[len(head) :]}"


def blocks_of(out: TextIO) -> str:
    """Characters of a sparkline that the terminal's encoding has."""
    return BLOCKS if console.can_write(BLOCKS, out) else ASCII_BLOCKS


def write_panel(lines: Sequence[Line], out: TextIO | None = None) -> None:
    """The panel once, as lines of text."""
    out = out or sys.stdout
    columns = console.columns_of(out) - 1 if out.isatty() else 10_000
    is_bold = console.can_be_drawn_over(out)
    for line in lines:
        out.write(row(line, columns, out, is_bold=is_bold) + "\n")
    out.flush()


class LivePanel:
    """Drawn when the supervisor has something to tell, from when the run has a name."""

    def __init__(self, store: Store) -> None:
        self._store, self._screen = store, Screen(sys.stderr)
        self._follower: RunFollower | None = None
        self._cost = OwnCost()
        self._drawn_at = float("-inf")

    def begin(self, experiment_id: str) -> None:
        """The run that is measured."""
        self._follower = RunFollower(self._store, experiment_id)

    def update(self, progress: "Progress") -> None:
        """Show what the log has by now, unless the last picture is too young. A log that cannot be read ends no measurement."""
        if self._follower is None or time.monotonic() - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = time.monotonic()
        with suppress(LogError):
            self._follower.read()
        lines = panel(
            self._follower.run, cost=self._cost, lines=self._screen.lines, blocks=blocks_of(sys.stderr)
        )
        self._screen.draw(lines)

    def end(self) -> None:
        """Leave nothing behind: the result comes in its place."""
        self._screen.erase()
        if self._follower is not None:
            self._follower.close()


@contextmanager
def live_panel(store: Store) -> Iterator[LivePanel]:
    """The panel for as long as the body runs."""
    shown = LivePanel(store)
    try:
        yield shown
    finally:
        shown.end()
