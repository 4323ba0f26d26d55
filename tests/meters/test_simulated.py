"""The simulated meter's curves and its exact counter."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.errors import MeterError
from llem.meters.simulated import Curve, SimulatedMeter, curve_of
from llem.plan import SimulatedMeterPlan
from tests.meters.conftest import ManualClock
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import Gpu, Scenario, random_walk, recorded, square, uuid_of

ROWS = st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 700.0)), min_size=1, max_size=8)


def _rows(steps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    times = accumulate((step_s for step_s, _ in steps), initial=0.0)
    return list(zip(times, [10.0, *(watts for _, watts in steps)], strict=True))


@settings(deadline=None)  # a slow machine is no failure
@given(steps=ROWS, start_s=st.floats(0, 50), span_s=st.floats(0.001, 20))
def test_energy_is_the_integral_of_power(
    steps: list[tuple[float, float]], start_s: float, span_s: float
) -> None:
    """The energy of any span is the sum over its straight pieces of length times the power in their middle."""
    curve, rows, end_s = Curve(_rows(steps)), _rows(steps), start_s + span_s
    repeats = range(int(start_s // curve.period_s), int(end_s // curve.period_s) + 1)
    kinks = [repeat * curve.period_s + second for repeat in repeats for second, _ in rows]
    pieces = pairwise(sorted([start_s, end_s, *(kink for kink in kinks if start_s < kink < end_s)]))
    summed = sum((b - a) * curve.power_w((a + b) / 2) for a, b in pieces)
    assert curve.energy_j(end_s) - curve.energy_j(start_s) == pytest.approx(summed, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("curve", "mean_w"),
    [("constant", 100.0), ("square", 60.0), ("ramp", 60.0), ([(0.0, 10.0), (1.0, 30.0)], 20.0)],
)
def test_named_and_given_curves(curve: object, mean_w: float) -> None:
    """Named curves swing between a fifth of the power and all of it; rows repeat."""
    plan = SimulatedMeterPlan(curve=curve, power_w=100.0, period_s=2.0)  # type: ignore[arg-type]
    assert curve_of(plan).energy_j(20.0) / 20.0 == pytest.approx(mean_w)


@pytest.mark.parametrize("rows", [[], [(1.0, 5.0)], [(0.0, 5.0), (2.0, 5.0), (1.0, 5.0)]])
def test_refuses_rows_that_are_no_curve(rows: list[tuple[float, float]]) -> None:
    """Rows start at 0 s and go forward."""
    with pytest.raises(MeterError, match="power curve: found"):
        curve_of(SimulatedMeterPlan(curve=rows))


def test_a_window_holds_exactly_the_energy_of_its_curve(manual_clock: ManualClock) -> None:
    """Edges after a tick differ by the curve's integral, to the counter's millijoule."""
    meter = SimulatedMeter(SimulatedMeterPlan(curve="square", power_w=400.0), clock=manual_clock.clock)
    (opened,) = meter.read_edge()
    manual_clock.sleep_s(10.0)
    (closed,) = meter.read_edge()
    assert opened.energy_mj is not None and closed.energy_mj is not None
    assert (closed.energy_mj - opened.energy_mj) / 1000 == pytest.approx(240.0 * 10.0, rel=0.01)


def test_can_do_without_a_counter(manual_clock: ManualClock) -> None:
    """No tick in the plan: no counter, with the reason."""
    meter = SimulatedMeter(SimulatedMeterPlan(counter_tick_ms=0), clock=manual_clock.clock)
    (edge,) = meter.read_edge()
    assert edge.energy_mj is None and edge.reason == "the plan gives the simulated device no energy counter"


@pytest.mark.parametrize(
    "rows", [square(600.0, 80.0, period_s=0.7), random_walk(80.0, 690.0, seed=3), recorded()]
)
def test_the_simulated_nvml_agrees_with_it(nvml: Simulation, rows: tuple[tuple[float, float], ...]) -> None:
    """Two programs, one in C, give the same true energy for a curve."""
    nvml.install(Scenario(gpus=[Gpu(uuid=uuid_of(0), curve=rows)]))
    start_ns, curve = nvml.clock.now_ns(), Curve(rows)
    for from_s, until_s in ((0.0, 10.0), (3.21, 4.56), (100.1, 987.6)):
        true_j = nvml.true_energy_j(0, start_ns + round(from_s * 1e9), start_ns + round(until_s * 1e9))
        assert curve.energy_j(until_s) - curve.energy_j(from_s) == pytest.approx(true_j, rel=1e-9)
