"""What the figures of a device rely on: what its meter says of it, or what a calibration of its sensors found."""

from typing import NamedTuple

import msgspec

from llem.units import NS_PER_S, seconds
from llem_events.events import Estimated, MeteredDevice, SensorCalibrated


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
    unseen_share: float = 0.0  # of the time
    idle_w: float = 0.0

    @classmethod
    def of(cls, calibrated: SensorCalibrated | None) -> "Blindness":
        """Nothing that is known, where nothing was calibrated."""
        if calibrated is None:
            return cls()
        delay, seen = calibrated.delay_s, calibrated.seen_share
        seen_share = seen.value if seen.high is None else seen.high
        return cls(
            delay_sec=delay.value or 0.0,
            delay_within_sec=_half_width(delay),
            unseen_share=0.0 if seen_share is None else max(0.0, 1.0 - seen_share),
            idle_w=calibrated.idle_w.value or 0.0,
        )

    def hidden_j(self, *, duration_sec: float, power_limit_w: float | None, shifted: bool) -> float | None:
        """How much a load in step with the sensor could hide, and what is told late; None where no limit bounds it.

        `shifted`: the readings were put back in time by the delay, so that only its interval is left.
        """
        late_sec = self.delay_within_sec + (0.0 if shifted else abs(self.delay_sec))
        if not (late_sec or self.unseen_share):
            return 0.0
        if power_limit_w is None:
            return None
        unseen_sec = self.unseen_share * duration_sec
        return (unseen_sec + late_sec) * (power_limit_w - self.idle_w)


def _half_width(estimate: Estimated) -> float:
    if estimate.low is None or estimate.high is None:
        return 0.0
    return (estimate.high - estimate.low) / 2
