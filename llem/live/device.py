"""One device of a run so far: its last sample, a minute of its power, and its energy within the measurement."""

import math
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from llem.results.energy import DeviceEnergy
from llem.results.throttling import ANY_REASON
from llem.units import MJ_PER_J, MW_PER_W, NS_PER_S
from llem_events.columns import Column
from llem_events.events import EnergyEdge, MeteredDevice
from llem_events.replay import SampleBatch

# Samples as young as this are summed anew whenever somebody looks: the windows that they are in may not be written yet.
YOUNG_NS = 10 * NS_PER_S
HISTORY_S = 60
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Window:
    """A span of a process's time; not closed while it goes on."""

    opened_ns: int
    closed_ns: int | None = None
    opening: list[EnergyEdge] = field(default_factory=list)
    closing: list[EnergyEdge] = field(default_factory=list)


@dataclass
class Samples:
    """Samples as they are summed: NaN and None where a value was not read."""

    at_ns: Ints
    power_w: Floats
    energy_mj: Floats
    temperature_c: Floats
    reasons: Ints


@dataclass
class Sums:
    """What samples say of a window, as far as they go."""

    samples: int = 0
    integrated_j: float = 0.0
    covered_s: float = 0.0  # of the window, by two samples
    throttled_s: float = 0.0
    longest_gap_s: float = 0.0
    coolest_c: float = math.inf
    hottest_c: float = -math.inf
    counter_mj: float | None = None  # the last reading of the energy counter
    reached_ns: int | None = None  # the last sample within
    last: Samples | None = None  # the one before those that come next, also from before the window

    def add(self, new: Samples, window: Window | None) -> None:
        """Count samples that follow those before."""
        joined = new if self.last is None else _joined(self.last, new)
        self.last = _tail(joined)
        if window is None:
            return
        end_ns = window.closed_ns or int(joined.at_ns[-1])
        self._integrate(joined, window.opened_ns, end_ns)
        within = (new.at_ns >= window.opened_ns) & (new.at_ns <= end_ns)
        if within.any():
            self._count(new, within, window)

    def _integrate(self, joined: Samples, start_ns: int, end_ns: int) -> None:
        """By trapezoids; the part of one that lies in the window counts with the mean of its two samples."""
        lengths_s = np.diff(np.clip(joined.at_ns, start_ns, end_ns)) / NS_PER_S
        means_w = (joined.power_w[1:] + joined.power_w[:-1]) / 2
        known = ~np.isnan(means_w)
        self.integrated_j += float((means_w * lengths_s)[known].sum())
        self.covered_s += float(lengths_s[known].sum())
        self.throttled_s += float(lengths_s[(joined.reasons[:-1] & ANY_REASON) != 0].sum())

    def _count(self, new: Samples, within: npt.NDArray[np.bool_], window: Window) -> None:
        at_ns = new.at_ns[within]
        before_ns = self.reached_ns or window.opened_ns
        self.longest_gap_s = max(
            self.longest_gap_s, float(np.diff(at_ns, prepend=before_ns).max()) / NS_PER_S
        )
        self.samples += len(at_ns)
        self.reached_ns = int(at_ns[-1])
        self.coolest_c = float(np.fmin.reduce(new.temperature_c[within], initial=self.coolest_c))
        self.hottest_c = float(np.fmax.reduce(new.temperature_c[within], initial=self.hottest_c))
        counted = new.energy_mj[within][~np.isnan(new.energy_mj[within])]
        self.counter_mj = float(counted[-1]) if len(counted) else self.counter_mj


@dataclass(frozen=True)
class Now:
    """The newest sample; None where the device does not say it."""

    at_ns: int
    power_w: float | None
    limit_w: float | None
    temperature_c: float | None
    clock_mhz: float | None
    reasons: int


class LiveDevice:
    """A device as one sampler reads it."""

    def __init__(self, meter: str, metered: MeteredDevice, *, is_beside: bool) -> None:
        self.meter, self.metered, self.is_beside = meter, metered, is_beside
        self.idle_w: float | None = None
        self.now: Now | None = None
        self.window: Window | None = None  # the measurement's
        self._seconds: dict[int, tuple[float, int]] = {}  # sum and number of powers
        self._settled = Sums()
        self._young: deque[Samples] = deque()
        self._summed: tuple[object, Sums] = None, Sums()

    def add(self, batch: SampleBatch) -> None:
        """Take samples, which follow those before."""
        columns = batch.columns
        samples = Samples(
            columns["at_ns"].values,
            _power_w(columns["power_mw"], columns["power_average_mw"]),
            columns["energy_mj"].floats(),
            columns["temperature_c"].floats(),
            _counts(columns["throttle_reasons"]),
        )
        self._young.append(samples)
        self.now = _newest(batch, samples, self.metered)
        self._remember(samples)
        while self._young and self.now.at_ns - int(self._young[0].at_ns[-1]) > YOUNG_NS:
            self._settled.add(self._young.popleft(), self.window)

    def sums(self) -> Sums:
        """All samples so far within the measurement."""
        state = self.now, self.window and (self.window.opened_ns, self.window.closed_ns)
        if self._young and self._summed[0] != state:
            sums = replace(self._settled)
            sums.add(_joined(*self._young), self.window)
            self._summed = state, sums
        return self._summed[1]

    def energy(self, sums: Sums) -> DeviceEnergy:
        """Energy within the measurement up to the last sample."""
        return DeviceEnergy.from_readings(
            self.metered.device,
            energy_source=self.metered.energy_source,
            counter_energy_j=self._counted_j(sums),
            integrated_energy_j=sums.integrated_j if sums.covered_s > 0 else None,
            baseline_power_w=self.idle_w,
        )

    def elapsed_s(self, sums: Sums) -> float:
        """How much of the measurement the energy is of."""
        if self.window is None:
            return 0.0
        end_ns = self.window.closed_ns or sums.reached_ns or self.window.opened_ns
        return (end_ns - self.window.opened_ns) / NS_PER_S

    def history_w(self, seconds: int = HISTORY_S) -> list[float | None]:
        """Mean power of each of the last seconds, the newest last; None for one without a sample."""
        if not self._seconds:
            return []
        newest = max(self._seconds)
        sums = [self._seconds.get(second) for second in range(newest - seconds + 1, newest + 1)]
        return [None if found is None else found[0] / found[1] for found in sums]

    def _counted_j(self, sums: Sums) -> float | None:
        if self.window is None:
            return None
        opened_mj = self._edge_mj(self.window.opening)
        closed_mj = self._edge_mj(self.window.closing) if self.window.closed_ns else sums.counter_mj
        return None if opened_mj is None or closed_mj is None else (closed_mj - opened_mj) / MJ_PER_J

    def _edge_mj(self, edges: list[EnergyEdge]) -> float | None:
        uuid = self.metered.device.uuid
        return next((edge.energy_mj for edge in edges if edge.device_uuid == uuid), None)

    def _remember(self, samples: Samples) -> None:
        seconds, places = np.unique(samples.at_ns // NS_PER_S, return_inverse=True)
        known = ~np.isnan(samples.power_w)
        sums = np.bincount(places[known], samples.power_w[known], len(seconds))
        counts = np.bincount(places[known], minlength=len(seconds))
        for second, power_w, count in zip(
            seconds[-HISTORY_S:].tolist(),
            sums[-HISTORY_S:].tolist(),
            counts[-HISTORY_S:].tolist(),
            strict=True,
        ):
            if count:
                before_w, before = self._seconds.get(second, (0.0, 0))
                self._seconds[second] = before_w + power_w, before + count
        for second in [second for second in self._seconds if second <= int(seconds[-1]) - HISTORY_S]:
            del self._seconds[second]


def _newest(batch: SampleBatch, samples: Samples, metered: MeteredDevice) -> Now:
    limit_mw = _last(batch.columns["power_limit_mw"]) or metered.device.power_limit_mw
    power_w, temperature_c = float(samples.power_w[-1]), float(samples.temperature_c[-1])
    return Now(
        at_ns=int(samples.at_ns[-1]),
        power_w=None if math.isnan(power_w) else power_w,
        limit_w=None if limit_mw is None else limit_mw / MW_PER_W,
        temperature_c=None if math.isnan(temperature_c) else temperature_c,
        clock_mhz=_last(batch.columns["sm_clock_mhz"]),
        reasons=int(samples.reasons[-1]),
    )


def _last(column: Column) -> float | None:
    if not len(column.values) or (column.missing is not None and column.missing[-1]):
        return None
    return float(column.values[-1])


def _counts(column: Column) -> Ints:
    return column.values if column.missing is None else np.where(column.missing, 0, column.values)


def _power_w(power_mw: Column, average_mw: Column) -> Floats:
    """The driver's average where it has nothing better."""
    power = power_mw.floats()
    return (average_mw.floats() if np.isnan(power).all() else power) / MW_PER_W


def _joined(*parts: Samples) -> Samples:
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))


def _tail(samples: Samples) -> Samples:
    return Samples(*(getattr(samples, name)[-1:] for name in _FIELDS))


_FIELDS = tuple(Samples.__dataclass_fields__)
