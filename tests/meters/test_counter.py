"""An energy counter is believed on a machine that is busy, and not beyond what the device can draw."""

from llem.meters.counter import CountedDevice, CounterSet, EnergyCounter, FaultLog, read_edges
from llem.units import NS_PER_MS
from tests.meters.conftest import ManualClock

WATTS = 700
LIMIT_MW = 700_000


class LateCounter:
    """Its value is dated only after `delay_s`, as where the reader loses its core in between."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.delay_s = self.extra_mj = 0.0
        self.delays_s: list[float] = []  # of the next readings, before it is `delay_s` again
        self.counter = EnergyCounter(
            "GPU-0", self._ask, clock=clock.clock, tick_ns=20 * NS_PER_MS, power_limit_mw=LIMIT_MW
        )

    def _ask(self) -> int:
        energy_mj = self._clock.at_ns * WATTS // 1_000_000 + int(self.extra_mj)
        self._clock.sleep_s(self.delays_s.pop(0) if self.delays_s else self.delay_s)
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


def test_an_edge_that_is_dated_late_is_read_again(manual_clock: ManualClock) -> None:
    """By a machine that was busy for a moment between the reading and its date: the energy is that of the date."""
    late = LateCounter(manual_clock)
    late.counter.tick_ns = None
    late.delays_s = [0.3]
    (edge,) = read_edges([late.counter], clock=manual_clock.clock)
    assert edge.energy_mj == edge.at_ns * WATTS // 1_000_000


def _set(clock: ManualClock, *, keep_unmoved: bool = False) -> CounterSet:
    """One device that draws 700 W, one whose counter stands still, one that has none."""
    devices = [
        CountedDevice("GPU-0", lambda: clock.at_ns * WATTS // 1_000_000),
        CountedDevice("GPU-1", lambda: 5),
        CountedDevice("GPU-2", None, reason="not supported by this device"),
    ]
    return CounterSet(devices, clock=clock.clock, keep_unmoved=keep_unmoved)


def test_each_device_has_an_edge_or_a_reason(manual_clock: ManualClock) -> None:
    """In the order of the devices, whatever each of them can say."""
    counters = _set(manual_clock)
    edges = counters.read_edges()
    assert [edge.device_uuid for edge in edges] == ["GPU-0", "GPU-1", "GPU-2"]
    assert [edge.energy_mj is None for edge in edges] == [False, True, True]
    assert [edge.reason for edge in edges] == [
        None,
        "the energy counter did not move in 0.5 s",
        "not supported by this device",
    ]
    assert [counters.missing(edge.device_uuid).get("energy_mj") for edge in edges] == [
        edge.reason for edge in edges
    ]


def test_a_counter_that_stands_still_is_kept_where_asked(manual_clock: ManualClock) -> None:
    """It counts, and only its tick is unknown."""
    counters = _set(manual_clock, keep_unmoved=True)
    assert counters.now_mj("GPU-1") == 5
    assert list(counters.missing("GPU-1")) == ["counter_tick_ns"]


def test_a_distrusted_set_says_nothing_more(manual_clock: ManualClock) -> None:
    """After a restart of the driver no counter is asked again."""
    counters = _set(manual_clock)
    assert counters.now_mj("GPU-0") is not None
    counters.distrust("the driver was restarted")
    assert counters.now_mj("GPU-0") is None
    assert counters.read_edges()[0].reason == "the driver was restarted"


def test_a_fault_is_told_once_for_what_it_is_about() -> None:
    """The same kind again is not told, another column is."""
    faults = FaultLog()
    faults.tell("GPU-0", "slow_driver", "one reading took 700 ms")
    faults.tell("GPU-0", "slow_driver", "one reading took 800 ms")
    faults.tell("GPU-0", "nvml_error", "power: no", about="power")
    faults.tell("GPU-0", "nvml_error", "clock: no", about="clock")
    assert [text for _, _, text in faults.take()] == ["one reading took 700 ms", "power: no", "clock: no"]
    assert faults.take() == []
