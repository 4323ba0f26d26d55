"""A run so far, read from its log as it grows: its processes and devices, the figures that they add up to, and what still keeps them from being valid."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from llem.live.device import LiveDevice
from llem.live.process import STAGES, LiveProcess
from llem.plan import Plan
from llem.results.energy import adjusted, distinct, least_trusted
from llem.results.nullable import largest, ratio, total
from llem.results.validity import InvalidReason, MeasuredFacts, judge
from llem.store import Store
from llem_events import SegmentHeader, boot_id
from llem_events.damage import Verdict
from llem_events.events import (
    Event,
    ExperimentCompleted,
    ExperimentInterrupted,
    ExperimentStarted,
    MeterStarted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
)
from llem_events.following import GrowingSegments
from llem_events.replay import Occurrence, SampleBatch, replay

N = TypeVar("N", int, float)
COMPARABLE_S = 5.0  # before, a tick of the counter is too much of the energy to hold it against the power
LOOK_S = 1.0  # between two looks for new segments and for their writers


class Figures(NamedTuple):
    """The measurement so far, over all processes; None where it is not measured."""

    energy_j: float | None
    above_idle_j: float | None
    energy_source: str | None
    energy_per_output_token_j: float | None
    above_idle_per_output_token_j: float | None
    output_tokens: int
    output_tokens_per_second: float | None
    tokens_per_second: float | None
    requests: int
    failed_requests: int
    ttft_p50_ms: float | None  # of the slowest process


class Reported(NamedTuple):
    """What wrapped programs say that they have done so far."""

    tokens: int | None
    requests: int | None
    tokens_per_second: float | None
    energy_per_token_j: float | None


class LiveRun:
    """What the segments of one run have said so far."""

    def __init__(self, experiment_id: str) -> None:
        self.experiment_id = experiment_id
        self.plan = Plan()
        self.started: ExperimentStarted | None = None
        self.ended: ExperimentCompleted | ExperimentInterrupted | None = None
        self.processes: dict[int, LiveProcess] = {}
        self.devices: list[LiveDevice] = []
        self.warning: WarningRaised | None = None  # the last one
        self.is_written = True
        self.is_damaged = False
        self.host: str | None = None
        self._of_process: dict[int, list[LiveDevice]] = {}
        self._now_ns: Callable[[], int] = time.monotonic_ns
        self._first_ns = self._last_ns = 0

    def take(self, header: SegmentHeader, told: Occurrence | SampleBatch) -> None:
        """Note what one segment says."""
        if isinstance(told, SampleBatch):
            self._sample(header.process_index, told)
            return
        self._last_ns = max(self._last_ns, told.envelope.at_ns)
        if not isinstance(told.event, Event):
            return
        match told.event:
            case ExperimentStarted():
                self._begin(header, told.event, told.envelope.at_ns)
            case ExperimentCompleted() | ExperimentInterrupted():
                self.ended = told.event
            case MeterStarted():
                self._meter(told.event)
            case WarningRaised():
                self.warning = told.event
            case _ if header.process_index is not None:
                self._process(header.process_index, told.event, told.envelope.at_ns)

    def now_ns(self) -> int:
        """Now on the run's clock; once it has ended, or nobody writes it any more, the last thing that it said."""
        return self._last_ns if self.ended is not None or not self.is_written else self._now_ns()

    def running_s(self) -> float:
        """Since it was started."""
        return max(0, self.now_ns() - self._first_ns) / 1e9

    def stage(self) -> str:
        """That of the process that is furthest behind, or how it ended."""
        if self.ended is not None:
            return "interrupted" if isinstance(self.ended, ExperimentInterrupted) else "done"
        if not self.is_written:
            return "killed"
        expected = self.started.expected_processes if self.started else 1
        if len(self.processes) < expected:
            return STAGES[0]
        return min((each.stage(self.plan) for each in self.processes.values()), key=STAGES.index)

    def behind_s(self) -> float | None:
        """Age of the newest sample; None before the first."""
        newest_ns = [device.now.at_ns for device in self.devices if device.now is not None]
        return max(0, self.now_ns() - max(newest_ns)) / 1e9 if newest_ns else None

    def figures(self) -> Figures | None:
        """Sums over devices and processes; None before the measurement."""
        if not any(process.measurement for process in self.processes.values()):
            return None
        energies, spans = self._energies()
        energy_j, idle_w = (
            total(each.energy_j for each in energies),
            total(each.baseline_power_w for each in energies),
        )
        span_s = max(spans, default=0.0)
        above_j = adjusted(energy_j, baseline_w=idle_w, duration_sec=span_s)
        counted = [process for process in self.processes.values() if process.measurement]
        rate = _sum_of(ratio(process.output_tokens, process.counted_s) for process in counted)
        all_rate = _sum_of(
            ratio(process.output_tokens + process.input_tokens, process.counted_s) for process in counted
        )
        return Figures(
            energy_j=energy_j,
            above_idle_j=above_j,
            energy_source=least_trusted([each.energy_source for each in energies]),
            energy_per_output_token_j=ratio(ratio(energy_j, span_s), rate),
            above_idle_per_output_token_j=ratio(ratio(above_j, span_s), rate),
            output_tokens=sum(process.output_tokens for process in counted),
            output_tokens_per_second=rate,
            tokens_per_second=all_rate,
            requests=sum(process.requests for process in counted),
            failed_requests=sum(process.failed_requests for process in counted),
            ttft_p50_ms=largest(process.ttft_p50_ms for process in counted),
        )

    def reported(self) -> Reported | None:
        """The work of wrapped programs; None where none tells any."""
        told = [process for process in self.processes.values() if process.work is not None]
        if not told:
            return None
        energies, spans = self._energies()
        mean_w = ratio(total(each.energy_j for each in energies), max(spans, default=0.0))
        rate = _sum_of(ratio(process.reported_tokens, process.counted_s) for process in told)
        return Reported(
            tokens=_sum_of(process.reported_tokens for process in told),
            requests=_sum_of(process.work.requests for process in told if process.work is not None),
            tokens_per_second=rate,
            energy_per_token_j=ratio(mean_w, rate),
        )

    def reasons(self, counted: Figures | None) -> list[InvalidReason]:
        """What would be said against these figures if the measurement ended now; what only its end can tell is left out."""
        energies, spans = self._energies()
        sums = [device.sums() for device in self._metered()]
        lengths = [
            process.elapsed_s("measurement", self.now_ns()) or 0.0 for process in self.processes.values()
        ]
        heats = [each.hottest_c - each.coolest_c for each in sums if each.hottest_c >= each.coolest_c]
        facts = MeasuredFacts(
            duration_sec=min(lengths, default=0.0),
            complete=self.stage() not in ("interrupted", "killed") and not self.failures(),
            ended_by=self.ended.reason if isinstance(self.ended, ExperimentInterrupted) else None,
            energy_j=counted.energy_j if counted else None,
            energy_source=counted.energy_source if counted else None,
            energy_disagreement=largest(each.disagreement for each in energies)
            if min(spans, default=0.0) >= COMPARABLE_S
            else None,
            samples=min((each.samples for each in sums), default=0),
            max_sample_gap_sec=largest(each.longest_gap_s for each in sums),
            throttled_fraction=largest(ratio(each.throttled_s, each.covered_s) for each in sums),
            temperature_drift_c=max(heats, default=None),
            requests=counted.requests if counted else None,
            failed_requests=counted.failed_requests if counted else None,
        )
        return judge(facts, self.plan.validity).invalid_reasons

    def failures(self) -> list[str]:
        """What processes said when they failed, and what else went wrong with the run."""
        told = [
            f"process {index} failed while {process.failure.stage}: {process.failure.message}"
            for index, process in sorted(self.processes.items())
            if process.failure is not None
        ]
        ended = self.ended
        if isinstance(ended, ExperimentCompleted) and ended.failure is not None:
            told.append(ended.failure)
        return told

    def is_success(self) -> bool:
        """Whether it has come to its end, and nothing failed."""
        ended = self.ended
        return isinstance(ended, ExperimentCompleted) and not ended.processes_failed and not self.failures()

    def is_counted(self) -> bool:
        """Whether there are requests and tokens: a wrapped program has none."""
        return self.started is None or not self.started.command

    def _metered(self) -> list[LiveDevice]:
        """Devices that are part of the total."""
        return [device for device in self.devices if not device.is_beside]

    def _energies(self) -> tuple[list[Any], list[float]]:
        """Each device of the total once, and how much of the measurement each figure is of."""
        sums = [(device, device.sums()) for device in self._metered()]
        energies = distinct([device.energy(sum_) for device, sum_ in sums])
        return energies, [device.elapsed_s(sum_) for device, sum_ in sums]

    def _begin(self, header: SegmentHeader, started: ExperimentStarted, at_ns: int) -> None:
        self.started, self._first_ns, self.host = started, at_ns, header.host
        self.plan = _plan(started.plan)
        if header.boot_id != boot_id():
            behind_ns = header.monotonic_ns - header.wall_ns
            self._now_ns = lambda: time.time_ns() + behind_ns

    def _meter(self, event: MeterStarted) -> None:
        meters = [
            (event.meter, event.devices, False),
            *((each.meter, each.devices, True) for each in event.beside),
        ]
        devices = [
            LiveDevice(name, metered, is_beside=beside)
            for name, listed, beside in meters
            for metered in listed
        ]
        self.devices += devices
        self._of_process[event.process_index] = devices
        self._pass_on(event.process_index)

    def _process(self, index: int, event: Event, at_ns: int) -> None:
        process = self.processes.setdefault(index, LiveProcess())
        process.take(event, at_ns)
        if not isinstance(event, WindowOpened | WindowClosed) or event.kind != "warmup":
            self._pass_on(index)

    def _pass_on(self, index: int) -> None:
        """The process's measurement and idle powers to its devices, whichever of their segments was read first."""
        if (process := self.processes.get(index)) is None:
            return
        for device in self._of_process.get(index, ()):
            device.window = process.measurement
            device.idle_w = process.idle_w.get(device.metered.device.uuid)

    def _sample(self, index: int | None, batch: SampleBatch) -> None:
        for device in self._of_process.get(index or 0, ()):
            if (device.meter, device.metered.device.uuid) == (
                batch.meter,
                batch.device_uuid,
            ) and batch.samples:
                device.add(batch)
                self._last_ns = max(self._last_ns, int(batch.columns["at_ns"].values[-1]))


def _sum_of(counts: Iterable[N | None]) -> N | None:
    """Of those that are known; None where none is."""
    known = [count for count in counts if count is not None]
    return sum(known[1:], known[0]) if known else None


def _plan(written: dict[str, Any]) -> Plan:
    """As it was resolved; the usual one where another llem wrote it otherwise."""
    try:
        return msgspec.convert(written, Plan)
    except (msgspec.ValidationError, TypeError, ValueError):
        return Plan()


class RunFollower:
    """A run, and its segments as far as they were read."""

    def __init__(self, store: Store, experiment_id: str) -> None:
        self.run = LiveRun(experiment_id)
        self._store = store
        self._look_again_at = 0.0
        self._segments = GrowingSegments(self._paths, salvage_damage=True)

    def read(self) -> bool:
        """Take what is new; whether there was anything. Cheap enough for four times a second.

        Raises NewerFormatError, SegmentReadError.
        """
        was_written = self._look()
        grown = self._segments.grown()
        for reader in grown:
            for told in replay(reader):
                if reader.header is not None:
                    self.run.take(reader.header, told)
            self.run.is_damaged |= reader.verdict is Verdict.CORRUPT
        changed = bool(grown) or was_written != self.run.is_written
        self.run.is_written = was_written
        return changed

    def _look(self) -> bool:
        """Whether anybody writes, now and then anew: what is read after that nobody adds to."""
        if time.monotonic() < self._look_again_at:
            return self.run.is_written
        self._look_again_at = time.monotonic() + LOOK_S
        self._segments.look()
        return self._segments.are_written()

    def close(self) -> None:
        """Close the files."""
        self._segments.close()

    def _paths(self) -> list[Path]:
        """Samplers last: when their samples are read, the windows that these lie in are known."""
        paths = self._store.segments(self.run.experiment_id)
        return sorted(paths, key=lambda path: path.name.startswith("sampler"))
