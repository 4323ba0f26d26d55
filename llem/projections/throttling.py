"""NVML's clocks-event reasons: why a GPU ran slower than it could."""

from collections.abc import Sequence

from llem.projections.derive.history import Span
from llem.projections.derive.samples import DeviceSamples
from llem.results import ThermalThrottleInfo
from llem.results.nullable import largest, total
from llem.units import seconds

SW_POWER, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER = 0x4, 0x8, 0x20, 0x40, 0x80
ANY = SW_POWER | HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | HW_POWER
MAX_TIMESTAMPS = 100  # the first ones; the samples have all


def throttling(
    devices: Sequence[Sequence[DeviceSamples]], spans: Sequence[Span]
) -> ThermalThrottleInfo | None:
    """What the samples of each device in each span say; the duration is that of the device with most.

    Moments are in seconds from the start of the first span. None without devices.
    """
    flat = [samples for spanned in devices for samples in spanned]
    if not flat:
        return None
    moments = {
        round(seconds(span[0] - spans[0][0]) + float(at_sec), 3)
        for spanned in devices
        for samples, span in zip(spanned, spans, strict=True)
        if (throttled := samples.throttled(ANY)) is not None
        for at_sec in throttled[0]
    }
    temperatures = [hottest for samples in flat if (hottest := samples.largest("temperature_c")) is not None]
    return ThermalThrottleInfo(
        detected=_reported(flat, ANY),
        thermal=_reported(flat, SW_THERMAL | HW_THERMAL),
        power=_reported(flat, SW_POWER | HW_POWER),
        sw_thermal=_reported(flat, SW_THERMAL),
        hw_thermal=_reported(flat, HW_THERMAL),
        hw_power=_reported(flat, HW_POWER),
        throttle_duration_sec=largest(_duration(spanned) for spanned in devices),
        max_temperature_c=max(temperatures, default=None),
        throttle_timestamps=sorted(moments)[:MAX_TIMESTAMPS],
    )


def _duration(spanned: Sequence[DeviceSamples]) -> float | None:
    return total(
        None if (stretches := samples.throttled(ANY)) is None else float(stretches[1].sum())
        for samples in spanned
    )


def _reported(spans: Sequence[DeviceSamples], mask: int) -> bool | None:
    """Whether any device reports a reason in `mask`; None where no driver tells."""
    told = [stretches for samples in spans if (stretches := samples.throttled(mask)) is not None]
    return any(len(starts) for starts, _ in told) if told else None
