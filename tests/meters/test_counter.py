"""An energy counter is believed on a machine that is busy, and not beyond what the device can draw."""

from llem.meters.counter import EnergyCounter
from llem.units import NS_PER_MS
from tests.meters.conftest import ManualClock

WATTS = 700
LIMIT_MW = 700_000


class LateCounter:
    """Its value is dated only after `delay_s`, as where the reader loses its core in between."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.delay_s = self.extra_mj = 0.0
        self.counter = EnergyCounter(
            "GPU-0", self._ask, clock=clock.clock, tick_ns=20 * NS_PER_MS, power_limit_mw=LIMIT_MW
        )

    def _ask(self) -> int:
        energy_mj = self._clock.at_ns * WATTS // 1_000_000 + int(self.extra_mj)
        self._clock.sleep_s(self.delay_s)
        return energy_mj


def test_a_reading_that_is_dated_late_is_no_jump(manual_clock: ManualClock) -> None:
    """What was drawn between the reading and its date is in the next value, and is not called impossible."""
    late = LateCounter(manual_clock)
    assert late.counter.now_mj() is not None
    manual_clock.sleep_s(0.1)
    late.delay_s = 0.3
    assert late.counter.now_mj() is not None
    late.delay_s = 0.0
    assert late.counter.now_mj() is not None
    assert late.counter.faults() == []


def test_a_jump_is_noticed_after_a_late_reading_too(manual_clock: ManualClock) -> None:
    """More than the device could draw since the reading before is still a fault."""
    late = LateCounter(manual_clock)
    late.counter.now_mj()
    manual_clock.sleep_s(0.1)
    late.delay_s = 0.3
    late.counter.now_mj()
    late.delay_s, late.extra_mj = 0.0, 1_000_000.0
    assert late.counter.now_mj() is None
    assert [fault.code for fault in late.counter.faults()] == ["counter_jump"]
