"""What one device's samples say of a span, of samples that are held in memory: everything at edges, in gaps and beyond limits."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from llem.projections.derive.held import Held, HeldSamples
from llem.projections.derive.pieces import Asked
from llem.projections.derive.samples import DeviceSamples
from llem.projections.derive.source import POSSIBLE, Device, Sampled, Series, Span, Values
from llem.results.phases import SILENT_PERIODS

GPU = Device(0, "GPU-0")
POWER_CAP, SLOWDOWN, NOTHING_TO_DO = 4, 8, 1  # NVML's bits
SPAN = (10 * 10**9, 20 * 10**9)
NEVER = float("nan")


def held(
    at_s: Sequence[float], *, segment: str = "s", device: Device = GPU, **columns: Sequence[float]
) -> HeldSamples:
    """Seconds of the monotonic clock, in any order."""
    known = {name: np.array(values, np.float64) for name, values in columns.items()}
    every = {name: known.get(name, np.full(len(at_s), NEVER)) for name in POSSIBLE}
    return HeldSamples(device, segment, np.array([round(1e9 * each) for each in at_s], np.int64), every)


def samples_of(
    at_s: Sequence[float], *, span: tuple[int, int] = SPAN, **columns: Sequence[float]
) -> DeviceSamples:
    return DeviceSamples(Held([], [held(at_s, **columns)], {}), GPU, span)


EVERY_SECOND = list(range(5, 26))
STEADY = {"power_w": [200.0] * len(EVERY_SECOND)}


def test_constant_power_for_ten_seconds() -> None:
    """200 W are 2,000 J, and nothing is uncertain but what the driver averages."""
    found = samples_of(EVERY_SECOND, **STEADY)
    assert (found.count, found.powered, found.repeated) == (11, 21, 0)
    assert found.integrated_energy_j == pytest.approx(2000.0)
    assert (found.max_gap_sec, found.highest_power_w) == (1.0, 200.0)
    assert found.integral_uncertainty_j(power_window_sec=0.0, power_limit_w=None) == pytest.approx(0.0)
    assert found.counted_energy_j is None and not found.counter_ran_backwards
    assert found.throttling is None and found.temperature_drift_c is None
    assert found.power_curve(np.array([0.0, 2.5, 10.0]), shift_sec=0.0).tolist() == pytest.approx(
        [0, 500, 2000]
    )
    assert np.diff(found.power_curve(np.array([3.0, 4.0]), shift_sec=3.0)).tolist() == pytest.approx([200.0])


def test_the_drivers_average_is_taken_where_there_is_nothing_better() -> None:
    """Its energy is uncertain by the second that it averages over; where an instant power is read it is not looked at."""
    average = samples_of(EVERY_SECOND, power_average_w=STEADY["power_w"])
    assert average.integrated_energy_j == pytest.approx(2000.0) and average.powered == 21
    assert average.highest_power_w is None
    bound_j = average.integral_uncertainty_j(power_window_sec=0.0, power_limit_w=400.0)
    assert bound_j == average.integral_uncertainty_j(power_window_sec=1.0, power_limit_w=400.0)
    assert bound_j is not None and bound_j > 0
    assert average.integral_uncertainty_j(power_window_sec=2.0, power_limit_w=400.0) > bound_j
    assert average.power_curve(np.array([0.0, 10.0]), shift_sec=0.0).tolist() == pytest.approx([0, 2000])
    assert np.diff(average.power_curve(np.array([3.0, 4.0]), shift_sec=3.0)) == pytest.approx(200.0)
    both = samples_of(EVERY_SECOND, power_average_w=[1.0] * 21, **STEADY)
    assert both.integrated_energy_j == pytest.approx(2000.0)


@pytest.mark.parametrize(
    ("at_s", "known"),
    [
        ((10.4, 11.0, 19.6), True),
        ((10.0, 15.0, 20.0), True),
        ((11.2, 11.8, 12.4, 19.9), True),  # twice the usual time between two is near enough
        ((11.4, 12.0, 12.6, 19.9), False),
        ((10.1, 10.7, 11.3, 18.7), False),
        ((10.1, 10.7, 11.3, 18.9), True),
        ((15.0,), False),
        ((9.0, 10.5, 20.5), False),  # one sample alone is in the span
        ((9.0, 12.0, 18.0, 20.5), True),
    ],
    ids=str,
)
def test_power_is_known_up_to_the_edges(at_s: tuple[float, ...], known: bool) -> None:
    """A device that was lost has no power after it; two samples in the span are needed."""
    found = samples_of(at_s, power_w=[100.0] * len(at_s))
    assert (found.integrated_energy_j is not None) is known
    assert found.integrated_energy_j in (None, pytest.approx(1000.0))


@pytest.mark.parametrize(
    ("at_s", "count", "gap_s"),
    [
        ((9.9, 10.0, 14.0, 20.0, 20.1), 3, 6.0),
        ((13.0, 14.0, 19.5), 3, 5.5),
        ((14.0, 15.0, 19.0), 3, 4.0),
        ((11.0, 12.0, 13.0), 3, 7.0),
        ((9.0, 21.0), 0, 10.0),
    ],
    ids=str,
)
def test_the_longest_gap_has_the_edges_as_ends(at_s: tuple[float, ...], count: int, gap_s: float) -> None:
    """Samples at an edge are in the span, those beside it are not."""
    found = samples_of(at_s, temperature_c=[40.0] * len(at_s))
    assert (found.count, found.max_gap_sec) == (count, pytest.approx(gap_s))


def test_the_gap_is_that_of_power_where_there_is_any() -> None:
    """Other columns may have been read meanwhile."""
    power_w = [100.0, NEVER, NEVER, NEVER, 100.0, 100.0]
    assert samples_of([10, 11, 12, 13, 14, 20], power_w=power_w).max_gap_sec == pytest.approx(6.0)
    assert samples_of([10, 15, 16, 17, 18, 20], power_w=power_w).max_gap_sec == pytest.approx(8.0)


def test_the_highest_power_is_that_in_the_span() -> None:
    """Not that beside it."""
    found = samples_of([9.99, 10.0, 15.0, 20.0, 20.01], power_w=[900, 300, 100, 200, 800])
    assert found.highest_power_w == 300.0
    assert samples_of([9.0, 21.0], power_w=[900, 900]).highest_power_w is None


def test_samples_of_one_moment_are_repeated() -> None:
    """Each but the first of them, in and around the span."""
    assert samples_of([9, 9, 10, 12, 12, 12, 30], power_w=[1.0] * 7).repeated == 3


@pytest.mark.parametrize(
    ("at_s", "energy_j", "counted_j"),
    [
        ((10, 15, 20), (5.0, 700.0, 1005.0), 1000.0),
        ((9, 11, 19, 21), (0.0, 200.0, 1000.0, 1200.0), 1000.0),  # in the middle between two at each edge
        ((10.1, 15, 20), (5.0, 700.0, 1005.0), None),
        ((10, 15, 19.9), (5.0, 700.0, 1005.0), None),
        ((9, 15, 21), (5.0, 700.0, 699.0), None),
        ((10, 20), (7.0, 7.0), 0.0),
    ],
    ids=str,
)
def test_a_counter_is_read_at_both_edges(
    at_s: Sequence[float], energy_j: Sequence[float], counted_j: float | None
) -> None:
    """Between two samples; none is told where an edge is beyond all of them, or where the counter fell."""
    found = samples_of(at_s, energy_j=energy_j)
    assert found.counted_energy_j == (None if counted_j is None else pytest.approx(counted_j))
    assert found.counter_ran_backwards is (energy_j[-1] == 699.0)


@pytest.mark.parametrize("before_j", [0.0, 2e11])
def test_a_counter_of_years_has_as_many_digits_as_a_new_one(before_j: float) -> None:
    """Between two samples, a third of the way at one edge."""
    energy_j = [before_j, before_j + 3.0, before_j + 900.0, before_j + 1_000.0]
    found = samples_of([9, 12, 19, 22], energy_j=energy_j)
    assert found.counted_energy_j == pytest.approx(900.0 + 100.0 / 3 - 1.0, abs=1e-9)


@pytest.mark.parametrize(("at_s", "known"), [([9.0, 21.0], True), ([9.0], False), ([], False)])
def test_two_samples_have_a_bound(at_s: list[float], known: bool) -> None:
    """One is no curve."""
    found = samples_of(at_s or [1.0], power_w=[100.0] * len(at_s) or [NEVER])
    assert (found.integral_uncertainty_j(power_window_sec=0.0, power_limit_w=None) is not None) is known


def test_over_no_time_a_counter_says_nothing() -> None:
    """Nor where there is none."""
    moment = (15 * 10**9, 15 * 10**9)
    assert samples_of([10, 15, 20], energy_j=[1, 2, 3], span=moment).counted_energy_j is None
    assert samples_of([10, 15, 20]).counted_energy_j is None


def test_a_sample_speaks_for_the_time_until_the_next() -> None:
    """From 9 to 12 s the power cap, of which 2 s are in the span; from 14 to 15 a slowdown; from 19 on to the span's end."""
    found = samples_of(
        [9, 12, 14, 15, 19, 23],
        throttle_reasons=[POWER_CAP, NOTHING_TO_DO, SLOWDOWN, 0, POWER_CAP, SLOWDOWN],
    ).throttling
    assert found is not None and found.duration_sec == pytest.approx(2.0 + 1.0 + 1.0)
    assert found.starts_sec.tolist() == [0.0, 4.0, 9.0]
    assert found.reasons == POWER_CAP | NOTHING_TO_DO | SLOWDOWN


def test_reasons_outside_of_the_span_are_none_of_it() -> None:
    """One that ended with the start, one that begins with the end."""
    found = samples_of([6, 10, 20], throttle_reasons=[POWER_CAP, 0, SLOWDOWN]).throttling
    assert found is not None and (found.reasons, found.duration_sec) == (0, 0.0)
    assert not len(found.starts_sec)
    only_last = samples_of([15], throttle_reasons=[POWER_CAP]).throttling
    assert only_last is not None and only_last.duration_sec == 5.0


def test_columns_that_are_counted() -> None:
    """In the span, edges included: sum, number, largest, and how far the temperature moved."""
    found = samples_of(
        [9, 10, 14, 15, 20, 21],
        temperature_c=[20, 40, 55, NEVER, 50, 90],
        memory_used_bytes=[1, 2, 3, 4, 5, 100],
    )
    assert found.sum_of("temperature_c") == (145.0, 3) and found.sum_of("memory_used_bytes") == (14.0, 4)
    assert found.largest("memory_used_bytes") == 5.0 and found.temperature_drift_c == 15.0
    assert found.largest("gpu_utilisation_pct") is None and found.sum_of("gpu_utilisation_pct") == (0.0, 0)


def test_a_margin_of_five_seconds_is_looked_at() -> None:
    """What is further away belongs to something else."""
    at_s = [4.9, 5.0, 15.0, 25.0, 25.1]
    assert samples_of(at_s, power_w=[1.0] * 5).powered == 3


def test_samples_of_several_segments_are_in_one_order() -> None:
    """A device's own, whoever wrote them in what order; each segment is counted, and what no device of today reads."""
    held_samples = [
        held([3, 2], power_w=[-1.0, 1e6]),
        held([1, 5], segment="t", power_w=[1e6 + 1, 2.0], temperature_c=[-61, 200]),
        held([4], device=Device(0, "GPU-1"), gpu_utilisation_pct=[101]),
        held([9], power_w=[0.0]),
        held([]),
    ]
    source = Held([], held_samples, {})
    assert source.sampled() == [
        Sampled(GPU, "s", samples=3, first_ns=2 * 10**9, last_ns=9 * 10**9, impossible=1),
        Sampled(GPU, "t", samples=2, first_ns=10**9, last_ns=5 * 10**9, impossible=1),
        Sampled(Device(0, "GPU-1"), "s", samples=1, first_ns=4 * 10**9, last_ns=4 * 10**9, impossible=1),
    ]
    at_ns, columns = source.samples(GPU, (2 * 10**9, 5 * 10**9), ["power_w"])
    assert (at_ns / 1e9).tolist() == [2, 3, 5] and columns["power_w"].tolist() == [1e6, -1.0, 2.0]
    assert source.extent(GPU) == (5, 10**9, 9 * 10**9)
    assert source.extent(Device(1, "GPU-0")) == (0, 0, 0)
    assert source.extremes("samples") == {"at_ns": (10**9, 9 * 10**9)}
    assert source.last_sample_ns(0, 9 * 10**9) == 9 * 10**9
    assert source.last_sample_ns(0, 9 * 10**9 + 1) is None and source.last_sample_ns(1, 0) is None


def test_values_of_two_parts_are_those_of_all() -> None:
    """What is none in one part is that of the other."""
    some, others = Values(3, 2, 5.0, 1.0, 4.0), Values(2, 1, 7.0, 7.0, 7.0)
    assert some.joined(others) == Values(5, 3, 12.0, 1.0, 7.0) == others.joined(some)
    none = Values(4, 0, 0.0, None, None)
    assert some.joined(none) == Values(7, 2, 5.0, 1.0, 4.0)
    assert none.joined(none) == Values(8, 0, 0.0, None, None)


def columns_of(found: DeviceSamples, moments_s: Sequence[float]) -> Mapping[str, list[float]]:
    trace = found.trace(counter_tick_sec=None, power_window_sec=0.0, made_up=None)
    (at_sec, power_w, energy_j, _), *more = trace.pieces(np.array(moments_s))
    assert not more
    return {"at": at_sec.tolist(), "power": power_w.tolist(), "energy": energy_j.tolist()}


def test_a_trace_counts_from_the_start_of_the_span() -> None:
    """With what was read a little before it."""
    found = columns_of(samples_of([8, 10, 12], power_w=[1, 2, 3], energy_j=[4, 5, 6]), [0.0])
    assert found == {"at": [-2, 0, 2], "power": [1, 2, 3], "energy": [4, 5, 6]}


def test_averaged_power_is_telescoped_where_the_device_idled_afterwards() -> None:
    """Of whichever column it was read; not without an averaging time, or a guard."""
    at_s = np.arange(6.0, 24.95, 0.05)
    loaded_s = np.clip(at_s, 10, 20) - np.clip(at_s - 1.0, 10, 20)
    average_w = (100.0 + 200.0 * loaded_s + 0.001 * np.sin(at_s)).tolist()
    usual = {
        "averaged_sec": 1.0,
        "idling": (20 * 10**9, 23 * 10**9),
        "power_limit_w": 400.0,
        "delay_sec": 0.0,
        "delay_within_sec": 0.0,
    }
    for column in ("power_w", "power_average_w"):
        samples = samples_of(at_s.tolist(), **{column: average_w})
        found = samples.telescoped(**usual)
        assert found is not None and found.energy_j == pytest.approx(3000.0, rel=0.01)
        assert samples.telescoped(**usual | {"averaged_sec": 0.0}) is None
        assert samples.telescoped(**usual | {"idling": None}) is None


class Pieced(Held):
    """Samples that are added up in pieces that end at 12 and 15 s of the monotonic clock."""

    def moments(self, device: Device, span: tuple[int, int]) -> np.ndarray:
        return np.array([12, 15], np.int64) * 10**9


def test_moments_are_moved_to_the_ends_of_pieces_where_these_come_soon() -> None:
    """Not those at the start, or after the last; without pieces none is."""
    moments_s = np.array([0.0, 0.7, 1.4, 1.5, 2.0, 4.5, 6.0])
    plain = samples_of(EVERY_SECOND, **STEADY)
    assert plain.at_ends_of_pieces(moments_s, within_sec=0.5).tolist() == moments_s.tolist()
    pieced = DeviceSamples(Pieced([], [held(EVERY_SECOND, **STEADY)], {}), GPU, SPAN)
    assert pieced.at_ends_of_pieces(moments_s, within_sec=0.5).tolist() == [0.0, 0.7, 1.4, 2.0, 2.0, 5.0, 6.0]
    assert pieced.at_ends_of_pieces(moments_s, within_sec=9.0).tolist() == [0.0, 2.0, 2.0, 2.0, 2.0, 5.0, 6.0]


class InParts(Held):
    """Samples that are read in so many parts, the last one empty."""

    parts = 1
    asked: Asked | None = None

    def ranges(self, device: Device, span: Span) -> Iterator[Span]:
        edges_ns = np.linspace(*span, self.parts + 1).astype(np.int64).tolist()
        for first_ns, end_ns in pairwise(edges_ns):
            yield first_ns, end_ns - 1
        yield span[1], span[1]

    def series(self, device: Device, span: Span, asked: Asked) -> Iterator[Series]:
        self.asked = asked
        ((at_ns, columns, _),) = super().series(device, span, asked)
        for part in [*np.array_split(np.arange(len(at_ns)), self.parts), NOTHING]:
            yield at_ns[part], {name: column[part] for name, column in columns.items()}, None


NOTHING = np.empty(0, np.int64)


def said_by(found: DeviceSamples) -> dict[str, Any]:
    """All that is asked of the samples of a device."""
    names = ("count", "powered", "repeated", "max_gap_sec", "highest_power_w", "integrated_energy_j")
    return {
        **{name: getattr(found, name) for name in names},
        "counted_energy_j": found.counted_energy_j,
        "counter_ran_backwards": found.counter_ran_backwards,
        "uncertainty_j": found.integral_uncertainty_j(power_window_sec=0.1, power_limit_w=500.0),
        "curve_j": found.power_curve(np.linspace(-1.0, 11.0, 30), shift_sec=0.25).tolist(),
        "throttling": None
        if found.throttling is None
        else (
            found.throttling.reasons,
            found.throttling.starts_sec.tolist(),
            found.throttling.duration_sec,
        ),
    }


@pytest.mark.parametrize("parts", [2, 3, 50, 400])
@pytest.mark.parametrize("seed", range(4))
def test_however_samples_are_read_they_say_the_same(seed: int, parts: int) -> None:
    """Some of one moment, some without a value, with gaps, held down now and then; of an instant power, or of the driver's average alone."""
    rng = np.random.default_rng(seed)
    at_s = np.sort(rng.choice(np.arange(400.0, 2600.0) / 100, 300)).tolist()
    missing, power = rng.random(300) < 0.1, ("power_w", "power_average_w")[seed % 2]
    columns: dict[str, Any] = {
        power: np.where(missing, NEVER, rng.uniform(50, 400, 300)),
        "energy_j": np.cumsum(rng.integers(0, 9, 300))
        - (50.0 * (np.arange(300) > 200) if seed == 3 else 0.0),
        "throttle_reasons": np.where(rng.random(300) < 0.1, NEVER, rng.choice([0, 0, 1, 4, 8], 300)),
    }
    source = InParts([], [held(at_s, **columns)], {})
    whole = said_by(DeviceSamples(source, GPU, SPAN))
    assert whole["repeated"] > 0
    assert whole["counter_ran_backwards"] is (seed == 3)
    source.parts = parts
    found = said_by(DeviceSamples(source, GPU, SPAN))
    for name, value in whole.items():
        assert found[name] == (
            pytest.approx(value, rel=1e-9) if isinstance(value, float | list) else value
        ), name


def test_what_is_asked_of_samples_is_handed_on() -> None:
    """Moments on the clock that is meant, the longest gap in nanoseconds, and how many moments of throttling are wanted."""
    source = InParts([], [held(EVERY_SECOND, **STEADY)], {})
    samples = DeviceSamples(source, GPU, SPAN)
    list(samples.series([1.0, 2.0], shift_sec=0.5, longest_sec=0.25, throttled=7))
    assert source.asked is not None and source.asked.moments_sec.tolist() == [1.0, 2.0]
    assert (source.asked.origin_ns, source.asked.shift_sec) == (SPAN[0], 0.5)
    assert (source.asked.longest_ns, source.asked.throttled) == (250_000_000, 7)
    once = [1.0, *[NEVER] * (len(EVERY_SECOND) - 1)]
    device = DeviceSamples(InParts([], [held(EVERY_SECOND, **STEADY, energy_j=once)], {}), GPU, SPAN)
    seen = device.trace(counter_tick_sec=0.1, power_window_sec=0.0, made_up=None)
    list(seen.pieces(np.array([1.0])))
    assert isinstance(device._source, InParts) and device._source.asked is not None
    assert device._source.asked.longest_ns == SILENT_PERIODS * 10**9
    list(samples.series([1.0]))
    assert (source.asked.shift_sec, source.asked.longest_ns, source.asked.throttled) == (0.0, np.inf, 0)
