"""The sampler process of one worker: reads its meters at a steady rate into a segment of its own."""

import math
import select
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llem.errors import MeterError
from llem.measure import children
from llem.measure.messages import (
    AnnounceMeter,
    Channel,
    EdgeRead,
    Finish,
    PeerGoneError,
    ReadEdge,
    ReportPower,
    SamplerSetup,
)
from llem.meters import create_meters
from llem.meters.base import Meter, default_hz
from llem.store import open_segment
from llem.units import MW_PER_W
from llem_events import BackgroundWriter, Reading, columns
from llem_events.events import (
    BaselinePower,
    MeteredDevice,
    MeterStarted,
    OtherMeter,
    SamplingCompleted,
    WarningRaised,
)
from llem_events.format import BLOCK_TARGET_NS

PRECISION_BITS = 5  # a bucket is at most 1/16 wide of what it holds
REPORT_INTERVAL_NS = 500_000_000


class Sampler:
    """Reads meters on schedule, answers the worker's requests for edges, and keeps both until the next flush.

    The first meter sets the pace, and the power that is told while it runs is its devices'.
    """

    def __init__(
        self,
        setup: SamplerSetup,
        meters: Sequence[Meter],
        log: BackgroundWriter,
        *,
        supervisor: Channel,
        worker: Channel,
    ) -> None:
        self._meters, self._log = meters, log
        self._supervisor, self._worker = supervisor, worker
        first, *others = [OtherMeter(meter=meter.NAME, devices=list(meter.devices())) for meter in meters]
        self._announcement = AnnounceMeter(meter=first.meter, devices=first.devices, beside=others)
        # meter and UUID of every device, in the order of readings and edges
        self._watched = [
            (each.meter, metered.device.uuid) for each in (first, *others) for metered in each.devices
        ]
        hz = setup.plan.meter.sample_hz or default_hz(first.devices)
        self._schedule = Schedule(hz)
        self._readings: list[list[Reading]] = [[] for _ in self._watched]
        self._powers = [PowerStatistics() for _ in self._watched]
        self._samples = 0
        self._flushed_ns = self._reported_ns = time.monotonic_ns()
        self._temperature_c: float | None = None
        log.append(
            MeterStarted(
                meter=first.meter,
                process_index=setup.process_index,
                sample_hz=hz,
                devices=first.devices,
                beside=others,
            ),
            at_ns=time.monotonic_ns(),
        )
        for warning in _instance_warnings(metered for each in (first, *others) for metered in each.devices):
            log.append(warning, at_ns=time.monotonic_ns())

    def run(self) -> None:
        """Sample until the supervisor or the worker is done or gone."""
        try:
            self._supervisor.send(self._announcement)
            self._worker.send(self._announcement)
            while self._answer(self._schedule.remaining_s()):
                if self._schedule.reached():
                    self._sample()
        except PeerGoneError:
            pass
        self._finish()

    def _answer(self, timeout_s: float) -> bool:
        """Handle what arrives before the next deadline; False when it is time to end."""
        ready, _, _ = select.select([self._supervisor, self._worker], [], [], timeout_s)
        for channel in ready:
            match channel.receive():
                case ReadEdge():
                    self._worker.send(self._read_edge())
                case Finish():
                    return False
        return True

    def _read_edge(self) -> EdgeRead:
        edges = [edge for meter in self._meters for edge in meter.read_edge()]
        self._record_faults()
        powers = results(self._powers, [uuid for _, uuid in self._watched])
        self._powers = [PowerStatistics() for _ in self._watched]
        return EdgeRead(edges=edges, powers=powers, temperature_c=self._temperature_c)

    def _sample(self) -> None:
        readings = [reading for meter in self._meters for reading in meter.read()]
        for kept, statistics, reading in zip(self._readings, self._powers, readings, strict=True):
            kept.append(reading)
            statistics.add(reading)
        self._samples += len(readings)
        temperatures = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
        self._temperature_c = max(temperatures, default=None)
        self._record_faults()
        now_ns = time.monotonic_ns()
        if now_ns - self._flushed_ns >= BLOCK_TARGET_NS:
            self._flush(now_ns)
        if now_ns - self._reported_ns >= REPORT_INTERVAL_NS:
            self._reported_ns = now_ns
            of_the_first = readings[: len(self._announcement.devices)]
            self._supervisor.offer(ReportPower(_total_power_w(of_the_first)))

    def _flush(self, now_ns: int) -> None:
        self._flushed_ns = now_ns
        for (meter, device_uuid), kept in zip(self._watched, self._readings, strict=True):
            if kept:
                event = columns.pack(kept, meter=meter, device_uuid=device_uuid)
                self._log.offer(event, at_ns=kept[0].at_ns, weight=len(kept))
                kept.clear()

    def _record_faults(self) -> None:
        for device_uuid, code, text in (fault for meter in self._meters for fault in meter.faults()):
            self._log.append(
                WarningRaised(code=code, text=text, device_uuid=device_uuid), at_ns=time.monotonic_ns()
            )

    def _finish(self) -> None:
        now_ns = time.monotonic_ns()
        self._flush(now_ns)
        event = SamplingCompleted(
            samples=self._samples,
            samples_dropped=self._log.dropped_total,
            deadlines_missed=self._schedule.missed,
            max_gap_ns=self._schedule.max_gap_ns,
            jitter_p99_ns=self._schedule.jitter_p99_ns(),
            cpu_time_ns=time.process_time_ns(),
        )
        self._log.append(event, at_ns=now_ns)


def _instance_warnings(devices: Iterable[MeteredDevice]) -> Iterator[WarningRaised]:
    for device in (metered.device for metered in devices if metered.device.kind == "mig"):
        text = (
            f"power and energy of MIG instance {device.uuid} are those of its whole GPU, {device.parent_uuid}"
        )
        yield WarningRaised(code="mig_parent_energy", text=text, device_uuid=device.uuid)


def _total_power_w(readings: Sequence[Reading]) -> float | None:
    powers = [reading.power_mw for reading in readings if reading.power_mw is not None]
    return sum(powers) / MW_PER_W if powers else None


def measure_power(supervisor: Channel, worker: Channel) -> None:
    """The life of a sampler: setup, samples, seal."""
    setup = supervisor.receive()
    if not isinstance(setup, SamplerSetup):
        raise MeterError("sampler", found=type(setup).__name__, expected="SamplerSetup")
    meters = create_meters(setup.plan, devices=setup.devices, pid=setup.pid)
    try:
        log = open_segment(
            Path(setup.folder),
            experiment_id=setup.experiment_id,
            role="sampler",
            process_index=setup.process_index,
            sync=setup.plan.log.sync,
        )
        with log:
            Sampler(setup, meters, log, supervisor=supervisor, worker=worker).run()
            log.seal()
    finally:
        for meter in meters:
            meter.close()


class PowerStatistics:
    """Running mean and sum of squares of one device's power (Welford 1962)."""

    def __init__(self) -> None:
        self._samples = 0
        self._mean_w = self._squares = 0.0

    def add(self, reading: Reading) -> None:
        """Count one reading; one without power is left out."""
        if reading.power_mw is None:
            return
        power_w = reading.power_mw / MW_PER_W
        self._samples += 1
        delta = power_w - self._mean_w
        self._mean_w += delta / self._samples
        self._squares += delta * (power_w - self._mean_w)

    def result(self, device_uuid: str) -> BaselinePower:
        """What was seen; None with a reason where no power was read."""
        if self._samples == 0:
            return BaselinePower(
                device_uuid=device_uuid,
                mean_power_w=None,
                std_power_w=None,
                samples=0,
                reason="no power was read",
            )
        spread_w = math.sqrt(self._squares / (self._samples - 1)) if self._samples > 1 else None
        return BaselinePower(
            device_uuid=device_uuid, mean_power_w=self._mean_w, std_power_w=spread_w, samples=self._samples
        )


def results(statistics: Sequence[PowerStatistics], device_uuids: Sequence[str]) -> list[BaselinePower]:
    """One result per device, in order."""
    return [each.result(uuid) for each, uuid in zip(statistics, device_uuids, strict=True)]


class Histogram:
    """Quantiles of whole numbers from 0 on, each too high by at most a sixteenth."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._total = 0

    def __len__(self) -> int:
        """How many buckets hold something."""
        return len(self._counts)

    def add(self, number: int) -> None:
        """Count one number."""
        shift = max(0, number.bit_length() - PRECISION_BITS)
        self._counts[shift, number >> shift] += 1
        self._total += 1

    def quantile(self, share: float) -> int | None:
        """The highest number of the bucket at which `share` of all that was counted is reached; None before the first."""
        if self._total == 0:
            return None
        rank = min(self._total - 1, int(self._total * share))
        seen = 0
        for (shift, leading), count in sorted(self._counts.items()):
            seen += count
            if seen > rank:
                return ((leading + 1) << shift) - 1
        return None


class Schedule:
    """Deadlines at a fixed rate from the first call; a missed one is counted, never made up for."""

    def __init__(self, hz: float) -> None:
        self._period_ns = round(1e9 / hz)
        self._next_ns = time.monotonic_ns()
        self._last_ns: int | None = None
        self._lateness_ns = Histogram()
        self.missed = 0
        self.max_gap_ns: int | None = None

    def remaining_s(self) -> float:
        """Seconds until the next deadline, 0 when it has passed."""
        return max(0, self._next_ns - time.monotonic_ns()) / 1e9

    def reached(self) -> bool:
        """Whether a sample is due; if so, the deadline moves on by whole periods."""
        now_ns = time.monotonic_ns()
        if now_ns < self._next_ns:
            return False
        skipped = (now_ns - self._next_ns) // self._period_ns
        self.missed += skipped
        self._lateness_ns.add(now_ns - self._next_ns)
        if self._last_ns is not None:
            self.max_gap_ns = max(self.max_gap_ns or 0, now_ns - self._last_ns)
        self._last_ns = now_ns
        self._next_ns += (skipped + 1) * self._period_ns
        return True

    def jitter_p99_ns(self) -> int | None:
        """99th percentile of how late the samples were, to a sixteenth; None before the first."""
        return self._lateness_ns.quantile(0.99)


if __name__ == "__main__":
    sys.exit(children.live(measure_power))
