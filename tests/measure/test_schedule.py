"""A sampler's deadlines are absolute."""

import time

from llem.measure.sampler import Schedule
from tests.delays import best_of_rounds, delays


def test_deadlines_do_not_drift() -> None:
    """Twenty samples at 100 Hz span nineteen periods, however long each one took."""
    started, schedule, taken = time.monotonic(), Schedule(100), 0
    while taken + schedule.missed < 20:
        time.sleep(schedule.remaining_s())
        taken += schedule.reached()
    assert time.monotonic() - started >= 0.19


@best_of_rounds
def test_a_late_sample_is_counted_and_not_made_up_for() -> None:
    """After a pause of five periods the missed ones are counted, and the next deadline lies in the future."""
    schedule = Schedule(100)
    assert schedule.reached()
    time.sleep(0.055)
    assert schedule.reached()
    assert schedule.missed >= 4
    with delays():
        assert not schedule.reached()
    assert schedule.max_gap_ns is not None and schedule.max_gap_ns >= 55_000_000


def test_nothing_is_known_before_the_first_sample() -> None:
    """Gap and jitter are None, not zero, as long as there are none."""
    schedule = Schedule(10)
    assert schedule.max_gap_ns is None
    assert schedule.jitter_p99_ns() is None
