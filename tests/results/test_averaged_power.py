"""Energy from power that a driver averages over a second, and how far it can be from the truth: of a load that is known."""

from typing import Any

import numpy as np
import pytest

from llem.results.averaged_power import AveragedReadings, Refreshes, Telescoped, refresh_period_sec

IDLE_W, LOAD_W, DURATION_S = 100.0, 300.0, 10.3


def averaged_w(at_sec: np.ndarray, averaged_s: float = 1.0) -> np.ndarray:
    """The mean of the last second: idle, then the load for its time, then idle again."""
    loaded_sec = np.clip(at_sec, 0, DURATION_S) - np.clip(at_sec - averaged_s, 0, DURATION_S)
    return IDLE_W + (LOAD_W - IDLE_W) * loaded_sec / averaged_s + 0.01 * np.sin(at_sec)


@pytest.mark.parametrize(
    ("refresh_s", "limit_w", "delays", "energy_j", "uncertainty_j"),
    [
        (0.1, 400.0, {}, 3090.010929, 8.682376019),
        (0.13, 400.0, {}, 3084.415102, 53.28849257),
        (0.1, 400.0, {"delay_sec": 0.05, "delay_within_sec": 0.01}, 3086.010813, 16.33122765),
        (0.13, 400.0, {"delay_sec": 0.05, "delay_within_sec": 0.01}, 3088.010462, 64.41215061),
        (0.1, 4_000.0, {}, 3090.010929, 12.18266902),
    ],
    ids=["in step", "out of step", "in step and late", "out of step and late", "a high limit"],
)
def test_the_energy_of_a_known_load_and_its_bound_stay_what_they_were(
    refresh_s: float, limit_w: float, delays: dict[str, float], energy_j: float, uncertainty_j: float
) -> None:
    """The truth, 3,090 J, lies within the bound, which neither grows nor shrinks unnoticed; readings come in pieces."""
    at_sec = np.arange(-3.0, 14.0, 0.02)
    late_sec = delays.get("delay_sec", 0.0)
    told_w = averaged_w(np.floor((at_sec - 0.003) / refresh_s) * refresh_s - late_sec)
    readings = AveragedReadings()
    for piece in zip(np.array_split(at_sec, 7), np.array_split(told_w, 7), strict=True):
        readings.add(*piece)
    found = readings.telescoped(
        duration_sec=DURATION_S, averaged_sec=1.0, guard_sec=2.5, power_limit_w=limit_w, **delays
    )
    assert found is not None and found.uncertainty_j is not None
    assert abs(found.energy_j - LOAD_W * DURATION_S) <= found.uncertainty_j
    assert (found.energy_j, found.uncertainty_j) == pytest.approx((energy_j, uncertainty_j), rel=1e-6)


def told(*, refresh_s: float, first_s: float = -3.0, last_s: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """Readings every 20 ms between two moments."""
    at_sec = np.arange(first_s, last_s, 0.02)
    return at_sec, averaged_w(np.floor((at_sec - 0.003) / refresh_s) * refresh_s)


def telescoped(*pieces: tuple[np.ndarray, np.ndarray], **asked: float | None) -> Telescoped | None:
    readings = AveragedReadings()
    for piece in pieces:
        readings.add(*piece)
    usual: dict[str, Any] = {"averaged_sec": 1.0, "guard_sec": 2.5, "power_limit_w": 400.0}
    return readings.telescoped(duration_sec=DURATION_S, **usual | asked)


@pytest.mark.parametrize("refresh_s", [0.1, 0.13], ids=["in step", "out of step"])
def test_energy_does_not_tell_how_its_readings_came(refresh_s: float) -> None:
    """All at once, the first alone, or with a piece of none between."""
    at_sec, power_w = told(refresh_s=refresh_s)
    whole = telescoped((at_sec, power_w))
    none = (at_sec[:0], power_w[:0])
    parted = telescoped(
        (at_sec[:1], power_w[:1]), none, (at_sec[1:9], power_w[1:9]), (at_sec[9:], power_w[9:])
    )
    assert whole is not None and parted is not None
    assert parted.energy_j == pytest.approx(whole.energy_j, rel=1e-9)


@pytest.mark.parametrize("averaged_s", [0.5, 2.0])
@pytest.mark.parametrize(("refresh_s", "most_j"), [(0.1, 1.0), (0.13, 15.0)], ids=["in step", "out of step"])
def test_a_sensor_may_average_over_any_time(averaged_s: float, refresh_s: float, most_j: float) -> None:
    """The energy is that of the load, and its bound holds it."""
    at_sec = np.arange(-3.0, 16.0, 0.02)
    told_w = averaged_w(np.floor((at_sec - 0.003) / refresh_s) * refresh_s, averaged_s)
    found = telescoped((at_sec, told_w), averaged_sec=averaged_s, guard_sec=3.5)
    assert found is not None and found.uncertainty_j is not None
    assert found.energy_j == pytest.approx(LOAD_W * DURATION_S, abs=min(most_j, found.uncertainty_j))


def test_a_sensor_may_average_over_one_refresh() -> None:
    """Its energies between refreshes are known as closely as those of many."""
    at_sec = np.arange(-3.0, 16.0, 0.02)
    told_w = averaged_w(np.floor((at_sec - 0.003) / 0.5) * 0.5, 0.5)
    found = telescoped((at_sec, told_w), averaged_sec=0.5, guard_sec=3.5)
    assert found is not None and found.uncertainty_j is not None and found.uncertainty_j < 10.0
    assert found.energy_j == pytest.approx(LOAD_W * DURATION_S, abs=1.0)


def test_each_moment_that_nobody_saw_is_told_by_its_own_stretch() -> None:
    """How far it is from where somebody looked: before, in, between and after two stretches, and where there is none."""
    moments = np.array([0.5, 1.25, 1.75, 2.5, 4.5, 5.75, 7.0])
    readings = Refreshes(moments, moments, moments, 0.1, np.array([[1.0, 2.0], [4.0, 6.0]]))
    assert readings.unread_within_sec(moments).tolist() == [0.0, 0.25, 0.25, 0.0, 0.5, 0.25, 0.0]
    told_late = readings.earlier(0.5, 0.25)
    assert told_late.unread_sec.tolist() == [[0.25, 1.75], [3.25, 5.75]]
    assert told_late.at_sec.tolist() == (moments - 0.5).tolist()
    everywhere = readings._replace(unread_sec=np.empty((0, 2)))
    assert everywhere.unread_within_sec(moments).tolist() == [0.0] * 7


@pytest.mark.parametrize("refresh_s", [0.1, 0.13], ids=["in step", "out of step"])
def test_a_guard_lasts_the_averaging_time_and_two_refreshes(refresh_s: float) -> None:
    """A little less is too short, a little more is enough."""
    for guard_s, is_told in ((0.99 + 2 * refresh_s, False), (1.01 + 2 * refresh_s, True)):
        found = telescoped(told(refresh_s=refresh_s), guard_sec=guard_s)
        assert (found is not None) is is_told


@pytest.mark.parametrize("refresh_s", [0.1, 0.13], ids=["in step", "out of step"])
def test_readings_reach_over_the_window_to_where_nothing_but_idling_is_told(refresh_s: float) -> None:
    """Those that begin in it, or end before, say nothing."""
    settled_s = DURATION_S + 1.0 + refresh_s
    assert telescoped(told(refresh_s=refresh_s, first_s=0.01)) is None
    assert telescoped(told(refresh_s=refresh_s, first_s=-0.5)) is not None
    assert telescoped(told(refresh_s=0.13, first_s=0.0)) is not None
    assert telescoped(told(refresh_s=refresh_s, last_s=settled_s - 0.05)) is None
    # the very last of them decides
    assert telescoped(told(refresh_s=refresh_s, last_s=settled_s + 0.06)) is not None


@pytest.mark.parametrize("refresh_s", [0.1, 0.13], ids=["in step", "out of step"])
def test_without_a_limit_there_is_no_bound(refresh_s: float) -> None:
    """The energy is the same."""
    with_limit, without = (
        telescoped(told(refresh_s=refresh_s), power_limit_w=limit_w) for limit_w in (400.0, None)
    )
    assert with_limit is not None and without is not None
    assert without.energy_j == with_limit.energy_j and without.uncertainty_j is None


def test_too_few_readings_say_nothing() -> None:
    """None, or one."""
    at_sec, power_w = told(refresh_s=0.1)
    assert telescoped() is None
    assert telescoped((at_sec[:1], power_w[:1])) is None


def test_a_refresh_is_seen_where_readings_are_closer() -> None:
    """From the times of changes, of which some are missed; with few changes, and where every reading is new, it is that between readings."""
    taken_sec = np.arange(100) * 0.1
    assert refresh_period_sec(taken_sec, 0.02) == pytest.approx(0.1)
    missed = np.delete(taken_sec, [20, 40, 41, 70])
    assert refresh_period_sec(missed, 0.02) == pytest.approx(0.1)
    assert refresh_period_sec(taken_sec, 0.099) == 0.099
    assert refresh_period_sec(taken_sec[:3], 0.02) == 0.02
    assert refresh_period_sec(taken_sec[:4], 0.02) == pytest.approx(0.1)


def test_a_window_without_another_has_the_bounds_of_both() -> None:
    """The energy is the difference; of two of which one has no bound, none is known."""
    whole = Telescoped(10.0, 2.0)
    assert whole.without(Telescoped(4.0, 0.5)) == (6.0, 2.5)
    assert whole.without(Telescoped(4.0, None)) == (6.0, None)


# Bounds of readings that begin 0.16 s before the load, by when the sensor looked first: every 5 ms of its refresh.
BY_PHASE = [
    18.3268,
    18.259,
    18.1938,
    18.1312,
    18.1243,
    18.0777,
    18.0328,
    17.9896,
    18.0454,
    12.7002,
    13.199,
    13.1988,
    10.9114,
    11.301,
    11.4002,
    11.2003,
    7.32441,
    7.5272,
    7.42707,
    7.32695,
]


def test_where_enough_was_read_before_the_load_the_bound_is_that_of_a_steady_rhythm() -> None:
    """A refresh before it at the least, however little of one is known; the energy hardly changes."""
    found = []
    for phase_s in np.arange(len(BY_PHASE)) * 0.005:
        at_sec = np.arange(-0.16, 14.0, 0.02)
        told_w = averaged_w(np.floor((at_sec - phase_s) / 0.1) * 0.1 + phase_s)
        found.append(telescoped((at_sec, told_w)))
    assert [each and each.uncertainty_j for each in found] == pytest.approx(BY_PHASE, rel=1e-4)
    assert [each and each.energy_j for each in found] == pytest.approx([LOAD_W * DURATION_S] * 20, abs=10.0)


# Energy and bound of loads at random, by their seed.
OF_ANY_LOAD = [
    (2463.583413, 79.43234499),
    (2333.472857, 57.05977723),
    (2781.772417, 35.89493768),
    (2738.071845, 5.413317423),
    (3116.840696, 89.82717589),
    (2882.790311, 68.99804868),
    (2292.245982, 21.38516516),
    (2259.563865, 80.79576955),
]


def of_any_load(seed: int) -> tuple[float, Telescoped | None]:
    """The true energy of ten steps of power, and what is told of it by a sensor with a rhythm at random, of which some readings are missed."""
    rng = np.random.default_rng(seed)
    edges_sec = np.concatenate(([-9.0, 0.0], np.sort(rng.uniform(0, DURATION_S, 9)), [DURATION_S, 99.0]))
    steps_w = np.concatenate(([IDLE_W], rng.uniform(IDLE_W, 400.0, 10), [IDLE_W]))
    until_j = np.concatenate(([0.0], np.cumsum(np.diff(edges_sec) * steps_w)))
    refresh_s, phase_s, delay_s = rng.choice([0.1, 0.13, 0.25]), rng.uniform(0, 0.1), rng.choice([0.0, 0.04])
    at_sec = np.sort(rng.uniform(-3.0, 14.0, 700))
    ends_sec = np.floor((at_sec - phase_s) / refresh_s) * refresh_s + phase_s - delay_s
    mean_w = np.interp(ends_sec, edges_sec, until_j) - np.interp(ends_sec - 1.0, edges_sec, until_j)
    told_w = mean_w + 0.05 * np.sin(ends_sec)
    asked = {"delay_sec": delay_s, "delay_within_sec": delay_s / 4}
    return float(until_j[-2] - until_j[1]), telescoped((at_sec, told_w), **asked)


@pytest.mark.parametrize("seed", range(len(OF_ANY_LOAD)))
def test_the_energy_of_any_load_stays_what_it_was(seed: int) -> None:
    """Within its bound of the truth."""
    truth_j, found = of_any_load(seed)
    assert found is not None and found.uncertainty_j is not None
    assert abs(found.energy_j - truth_j) <= found.uncertainty_j
    assert (found.energy_j, found.uncertainty_j) == pytest.approx(OF_ANY_LOAD[seed], rel=1e-6)


SQUARE_PERIOD_S = 0.7
UNREAD_S = 0.8


def square_j(at_sec: np.ndarray) -> np.ndarray:
    """Energy since the window was opened: a load that is on for half of every 0.7 s until the window ends, idle power beside it."""
    loaded_sec = np.clip(at_sec, 0, DURATION_S)
    periods, within_sec = np.divmod(loaded_sec, SQUARE_PERIOD_S)
    half_sec = SQUARE_PERIOD_S / 2
    on_sec: np.ndarray = periods * half_sec + np.minimum(within_sec, half_sec)
    return IDLE_W * at_sec + (LOAD_W - IDLE_W) * on_sec


@pytest.mark.parametrize("refresh_s", [0.025, 0.05, 0.1, 0.13])
def test_the_truth_lies_within_the_bound_where_nobody_looked_for_a_while(refresh_s: float) -> None:
    """Wherever the stretch without a reading lies, also where the average before it is told again after it."""
    at_sec = np.arange(-3.0, 14.0, 0.02)
    taken_sec = np.floor((at_sec - 0.003) / refresh_s) * refresh_s
    told_w = (square_j(taken_sec) - square_j(taken_sec - 1)).round(3)
    true_j = float(square_j(np.array([DURATION_S]))[0])
    outside = []
    for from_sec in np.arange(-1.0, DURATION_S + 0.5, 0.013):
        read = (at_sec <= from_sec) | (at_sec >= from_sec + UNREAD_S)
        found = telescoped((at_sec[read], told_w[read]), power_limit_w=LOAD_W)
        assert found is not None and found.uncertainty_j is not None
        if abs(found.energy_j - true_j) > found.uncertainty_j:
            outside.append((float(from_sec), found.energy_j - true_j, found.uncertainty_j))
    assert outside == []
