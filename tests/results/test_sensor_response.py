"""Sensors whose window, delay and refresh are known are found again from what they read of a known load."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_sensors import Trace, read, readings
from llem.results.sensor_response import Load, SensorResponse, sensor_response

IDLE_W, LOAD_W = 80.0, 600.0
# period in seconds, share of it that is on, periods
WAVES = ((4.0, 0.5, 3), (0.4, 0.5, 15), (1.0, 0.25, 6), (0.13, 0.5, 40), (0.057, 0.5, 60), (0.7, 0.4, 12))
H200 = Path(__file__).parents[2] / "benchmarks" / "data" / "h200_square_waves"


def spans() -> Iterator[tuple[float, float]]:
    """A minute of square waves, and a constant load."""
    at_sec = 5.0
    for period_sec, share, periods in WAVES:
        for number in range(periods):
            yield at_sec + number * period_sec, at_sec + (number + share) * period_sec
        at_sec += periods * period_sec + 2.0
    yield at_sec, at_sec + 10.0


LOAD = Load.of(list(spans()))


class Sensor:
    """Looks every so often at the mean of the load over a window that ends some time ago."""

    def __init__(self, seed: int, *, low_pass: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.refresh_sec = rng.choice([0.06, 0.1, 0.25]) * rng.uniform(0.9, 1.1)
        part_time = rng.random() < 0.5
        self.window_sec = self.refresh_sec * rng.uniform(0.15, 1) if part_time else rng.uniform(0.3, 2)
        self.delay_sec = rng.uniform(0, 0.1)
        self.looks = 1  # of whose last ones it tells the mean
        self.noise_w = 2.0
        self._low_pass, self._rng = low_pass, rng

    @property
    def seen_share(self) -> float:
        return min(1.0, self.window_sec / self.refresh_sec)

    def readings(self) -> tuple[np.ndarray, np.ndarray]:
        """A hundred a second, not quite in step, with noise."""
        rng, refresh_sec = self._rng, self.refresh_sec
        at_sec = np.arange(0.0, LOAD.at_sec[-1] + 3, 0.01)
        at_sec += rng.uniform(0, 0.002, len(at_sec))
        phase = rng.uniform(0, refresh_sec)
        number = np.floor((at_sec - phase) / refresh_sec).astype(int)
        look = LOAD.filtered if self._low_pass else LOAD.mean
        at_looks = (number * refresh_sec + phase - back * refresh_sec for back in range(self.looks))
        seen = np.mean([look(each, self.window_sec, self.delay_sec) for each in at_looks], axis=0)
        noise = rng.normal(0, self.noise_w, number.max() + 2)[number]
        return at_sec, np.round(IDLE_W + (LOAD_W - IDLE_W) * seen + noise, 3)

    def response(self) -> SensorResponse:
        return sensor_response(*self.readings(), LOAD)


# What was found of these sensors: refresh, window, delay and share seen, each with its interval, and the share explained.
KEPT = {
    "0": [0.238488, 0.238484, 0.238492, 0.039083, 0.036535, 0.04163, 0.081542, 0.065231, 0.097852, 0.163876, 0.153196, 0.174556, 0.999927],
    "1": [0.109009, 0.109008, 0.10901, 0.104103, 0.103164, 0.105043, 0.031257, 0.026113, 0.036401, 0.954997, 0.946378, 0.963616, 0.999921],
    "low pass": [0.238488, 0.238484, 0.238492, 0.999919],
    "long window": [0.1, 0.099999, 0.100002, 1.000475, 0.997582, 1.003368, 0.078875, 0.072547, 0.085203, 1.0, 1.0, 1.0, 0.999871],
    "looks": [0.1, 0.099999, 0.100002, 0.987353, 0.975828, 0.998878, 0.032833, 0.009623, 0.056042, 0.327331, 0.247331, 0.367331, 0.999856],
    "fast": [0.02, 0.02, 0.02, 0.009994, 0.082826, 0.077776, 0.087876, 0.999868],
}  # fmt: skip


def assert_kept(found: SensorResponse, name: str) -> None:
    """A change of the search changes no figure without a word."""
    estimates = (found.refresh_s, found.window_s, found.delay_s, found.seen_share)
    ends = [end for each in estimates for end in (each.value, each.low, each.high) if end is not None]
    assert [*ends, found.explained] == pytest.approx(KEPT[name], rel=1e-4, abs=2e-6)


def assert_found(sensor: Sensor, kept: str | None = None) -> None:
    found = sensor.response()
    if kept is not None:
        assert_kept(found, kept)
    assert found.reason is None and found.averages == "boxcar"
    assert found.refresh_s.value == pytest.approx(sensor.refresh_sec, rel=0.01)
    assert found.delay_s.value == pytest.approx(sensor.delay_sec, abs=0.01)
    assert found.seen_share.value == pytest.approx(sensor.seen_share, abs=0.05)
    if sensor.window_sec > 0.3:
        assert found.window_s.value == pytest.approx(sensor.window_sec, rel=0.05)


@pytest.mark.parametrize("seed", range(2))
def test_a_sensor_is_found_again(seed: int) -> None:
    """Refresh within 1 %, window within 5 %, delay within 10 ms, the share of time that it sees within 5 points."""
    assert_found(Sensor(seed), kept=str(seed))


@pytest.mark.slow
def test_fifty_sensors_are_found_again() -> None:
    """Whatever their refresh, window and delay."""
    for seed in range(100, 150):
        assert_found(Sensor(seed))


@pytest.mark.parametrize("seed", range(1))
def test_a_low_pass_is_called_so(seed: int) -> None:
    """It is no mean over a window, so it has none."""
    found = Sensor(seed, low_pass=True).response()
    assert (found.averages, found.window_s.value, found.seen_share.value) == ("other", None, None)
    assert_kept(found, "low pass")


def test_the_intervals_are_narrow_where_much_is_known() -> None:
    """A window of a second is known to a few per cent, with what it may be wrong."""
    sensor = Sensor(0)
    sensor.refresh_sec, sensor.window_sec = 0.1, 1.0
    found = sensor.response()
    assert_kept(found, "long window")
    assert abs(found.window_s.value - 1.0) <= 0.02 and found.window_s.low < 1.0 < found.window_s.high < 1.05


def test_a_mean_of_looks_has_an_interval_of_their_share_too() -> None:
    """Of a second, in which it looks ten times for 30 ms."""
    sensor = Sensor(0)
    sensor.refresh_sec, sensor.window_sec, sensor.looks = 0.1, 0.03, 10
    found = sensor.response()
    assert_kept(found, "looks")
    share = found.seen_share
    assert share.value == pytest.approx(0.3, abs=0.05)
    assert 0.15 < share.low < share.value < share.high < 0.45


@pytest.mark.parametrize(("looks", "looked", "seen"), [(10, 0.93, 0.93), (10, 0.97, 1.0), (1, 1.0, 1.0)])
def test_a_sensor_that_looks_nearly_all_of_the_time_sees_all_of_it(
    looks: int, looked: float, seen: float
) -> None:
    """From 95 % on, though its readings may tell the difference; none sees more."""
    sensor = Sensor(0)
    sensor.refresh_sec, sensor.window_sec, sensor.looks, sensor.noise_w = 0.1, 0.1 * looked, looks, 0.0
    share = sensor.response().seen_share
    assert share.value == pytest.approx(seen, abs=0.005)
    assert (share.low, share.high) == pytest.approx((seen, seen), abs=0.06)
    assert share.low <= share.value <= share.high <= 1.0


def test_refreshes_closer_than_readings_say_nothing_of_the_share_seen() -> None:
    """At a hundred readings a second, a sensor that looks every 20 ms may see all of the time or a part of it."""
    sensor = Sensor(0)
    sensor.refresh_sec, sensor.window_sec = 0.02, 0.005
    found = sensor.response()
    assert found.seen_share.value is None
    assert_kept(found, "fast")


def test_a_load_that_changes_nothing_tells_nothing() -> None:
    """Power that stays the same, and power that somebody else draws."""
    at_sec = np.arange(0.0, LOAD.at_sec[-1] + 3, 0.01)
    assert "changed 0 times" in sensor_response(at_sec, np.full(len(at_sec), 80.0), LOAD).reason
    noise = np.random.default_rng(1).uniform(80, 600, len(at_sec[::10]))
    assert "explains" in sensor_response(at_sec[::10], noise, LOAD).reason


@pytest.fixture(scope="module")
def h200() -> Trace:
    return read(H200)


@pytest.mark.slow
def test_the_average_of_a_real_h200(h200: Trace) -> None:
    """Recorded on the device: a mean over a second, renewed every tenth of one, some 20 ms late."""
    average = sensor_response(*readings(h200, "average_w"), Load.of(h200.loads))
    assert average.averages == "boxcar" and average.explained > 0.95
    assert average.refresh_s.value == pytest.approx(0.101, abs=0.002)
    assert average.window_s.low < 1.0 < average.window_s.high
    assert average.delay_s.value == pytest.approx(0.02, abs=0.01)


@pytest.mark.slow
def test_the_instant_power_of_a_real_h200_sees_a_part_of_the_time(h200: Trace) -> None:
    """The paper on part-time sensors has a quarter for its generation; the load is not one power, so that a window is not told."""
    instant = sensor_response(*readings(h200, "instant_w"), Load.of(h200.loads))
    assert instant.averages is None and "explains 92%" in instant.window_s.reason
    assert 0.2 < instant.seen_share.low < instant.seen_share.high < 0.4
