"""How often devices are read where the plan does not say it."""

from collections.abc import Sequence

from llem_events.events import MeteredDevice

MAX_HZ = 100.0
MIN_HZ = 10.0
AVERAGED_HZ = 50.0  # at which refreshes of an averaging sensor are told apart down to every 30 ms


def default_hz(devices: Sequence[MeteredDevice]) -> float:
    """One sample per tick of the fastest counter, between MIN_HZ and MAX_HZ; an estimate is not worth more than MIN_HZ.

    Where power is averaged and there is no counter, when the average changes is what its energy follows from.
    """
    ticks = [
        each.counter_tick_ns for each in devices if each.counter_tick_ns and each.energy_source != "estimated"
    ]
    if ticks:
        return min(MAX_HZ, max(MIN_HZ, 1e9 / min(ticks)))
    averaged = any(each.power_kind == "average" and each.power_window_ns for each in devices)
    return AVERAGED_HZ if averaged else MIN_HZ
