"""NVML's clocks-event reasons: why a GPU ran slower than it could."""

from collections.abc import Sequence

from llem.projections.device_samples import DeviceSamples
from llem.results import ThermalThrottleInfo
from llem.results.ratios import largest, total

SW_POWER, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER = 0x4, 0x8, 0x20, 0x40, 0x80
ANY = SW_POWER | HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | HW_POWER
MAX_TIMESTAMPS = 100  # the first ones; the samples have all


def throttling(devices: Sequence[Sequence[DeviceSamples]]) -> ThermalThrottleInfo | None:
    """What the samples of each device in each span say; the duration is that of the device with most.

    Moments are in seconds from the start of their span. None without devices.
    """
    spans = [each for spanned in devices for each in spanned]
    if not spans:
        return None
    any_reason = [found for each in spans if (found := each.throttled(ANY)) is not None]
    starts = sorted({round(float(at), 3) for found in any_reason for at in found[0]})
    temperatures = [hottest for each in spans if (hottest := each.largest("temperature_c")) is not None]
    return ThermalThrottleInfo(
        detected=_reported(spans, ANY),
        thermal=_reported(spans, SW_THERMAL | HW_THERMAL),
        power=_reported(spans, SW_POWER | HW_POWER),
        sw_thermal=_reported(spans, SW_THERMAL),
        hw_thermal=_reported(spans, HW_THERMAL),
        hw_power=_reported(spans, HW_POWER),
        throttle_duration_sec=largest(_duration(spanned) for spanned in devices),
        max_temperature_c=max(temperatures, default=None),
        throttle_timestamps=starts[:MAX_TIMESTAMPS],
    )


def _duration(spanned: Sequence[DeviceSamples]) -> float | None:
    return total(
        None if (found := each.throttled(ANY)) is None else float(found[1].sum()) for each in spanned
    )


def _reported(spans: Sequence[DeviceSamples], mask: int) -> bool | None:
    """Whether any device reports a reason in `mask`; None where no driver tells."""
    found = [stretches for each in spans if (stretches := each.throttled(mask)) is not None]
    return any(len(starts) for starts, _ in found) if found else None
