"""What the figures of a device rely on: what its meter says of it, or what a calibration of its sensors found."""

from typing import NamedTuple

import msgspec

from llem.results.power import hidden_j
from llem.units import NS_PER_S, seconds
from llem_events.events import Estimated, MeteredDevice, SensorCalibrated

NEARLY_ALL_SEEN = 0.95  # of the time: a sensor that may see so much is not taken for a part-time one


def as_calibrated(metered: MeteredDevice, calibrated: SensorCalibrated | None) -> MeteredDevice:
    """With the tick of the counter and the averaging window that were found.

    What is documented stands where it lies within what was found. A sensor that looks at a part of the time tells of no less than
    the time between two readings.
    """
    if calibrated is None:
        return metered
    tick_s, window_s = calibrated.energy_refresh_s.value, _window_s(metered, calibrated)
    has_counter = metered.energy_source == "counter" and tick_s is not None
    return msgspec.structs.replace(
        metered,
        counter_tick_ns=_ns(tick_s) if has_counter else metered.counter_tick_ns,
        power_window_ns=metered.power_window_ns if window_s is None else _ns(window_s),
    )


def _window_s(metered: MeteredDevice, calibrated: SensorCalibrated) -> float | None:
    """None where nothing better is known than what the meter says."""
    window, refresh_s = calibrated.averaging_window_s, calibrated.power_refresh_s.value or 0.0
    if window.value is None or _holds(window, seconds(metered.power_window_ns or 0)):
        return None
    return max(window.value, refresh_s) if calibrated.averages in ("boxcar", "none") else None


def _holds(estimate: Estimated, value: float) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= value <= estimate.high


def _ns(duration_s: float | None) -> int | None:
    return None if duration_s is None else round(duration_s * NS_PER_S)


class Blindness(NamedTuple):
    """What a calibration says that a power sensor does not show."""

    delay_sec: float = 0.0  # of a reading behind the power that it tells
    delay_within_sec: float = 0.0
    # Of the time, the least that it may be; None where it was not found to be a part.
    seen_share: float | None = None
    refresh_sec: float = 0.0
    idle_w: float = 0.0

    @classmethod
    def of(cls, calibrated: SensorCalibrated | None) -> "Blindness":
        """Nothing that is known, where nothing was calibrated."""
        if calibrated is None:
            return cls()
        delay, seen, refresh = calibrated.delay_s, calibrated.seen_share, calibrated.power_refresh_s
        most = seen.value if seen.high is None else seen.high
        return cls(
            delay_sec=delay.value or 0.0,
            delay_within_sec=_half_width(delay),
            seen_share=None if most is None or most >= NEARLY_ALL_SEEN else seen.low or seen.value,
            refresh_sec=refresh.value or 0.0,
            idle_w=calibrated.idle_w.value or 0.0,
        )

    def late_j(self, power_limit_w: float | None) -> float | None:
        """What is told late at the edges of a span; None where no limit bounds it."""
        late_sec = abs(self.delay_sec) + self.delay_within_sec
        if not late_sec:
            return 0.0
        return None if power_limit_w is None else late_sec * (power_limit_w - self.idle_w)

    def hidden_j(
        self, energy_j: float, *, duration_sec: float, power_limit_w: float | None, shifts: int
    ) -> float | None:
        """How much a load could hide that was shifted so many times; None where no limit bounds it."""
        if self.seen_share is None:
            return 0.0
        if power_limit_w is None:
            return None
        return hidden_j(
            energy_j,
            duration_sec=duration_sec,
            seen_share=self.seen_share,
            least_w=self.idle_w,
            most_w=power_limit_w,
            shifts=shifts,
        )


def _half_width(estimate: Estimated) -> float:
    if estimate.low is None or estimate.high is None:
        return 0.0
    return (estimate.high - estimate.low) / 2
