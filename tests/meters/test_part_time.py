"""Power from a sensor that sees a quarter of the time, and a load that keeps step with it or does not."""

import random

import pytest

from llem.results.power import hidden_j
from tests.simulated_nvml.accuracy import IN_STEP, SEEN
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import Gpu, Row, Scenario, uuid_of
from tests.simulated_nvml.window import Window, measure

BATCH_STEPS, BATCHES = 3, 500  # of a tenth of a second each
LEAST_W, MOST_W = 100.0, 600.0


def batches(*, shift_pauses_s: float) -> tuple[Row, ...]:
    """Bursts in step with the sensor's period, with a random pause after each batch of them."""
    rng, at_s, rows = random.Random(13), 0.0, []
    for _ in range(BATCHES):
        for _ in range(BATCH_STEPS):
            rows += [(at_s + since_s, power_w) for since_s, power_w in IN_STEP]
            at_s += SEEN[1]
        at_s += rng.uniform(0.0, shift_pauses_s)
    return (*rows, (at_s, LEAST_W))


def measured(nvml: Simulation, *, shift_pauses_s: float) -> Window:
    gpu = Gpu(
        uuid=uuid_of(0), curve=batches(shift_pauses_s=shift_pauses_s), seen=SEEN, counter_tick_ms=0.0,
        fields=frozenset({"instant"}),
    )  # fmt: skip
    nvml.install(Scenario(gpus=[gpu]))
    return measure(nvml, gpu, clock=nvml.clock, window_s=gpu.curve[-1][0])


def bound_j(window: Window, *, duration_s: float, shifts: int = 0) -> float:
    return hidden_j(
        window.integrated_j, duration_sec=duration_s, seen_share=SEEN[0], least_w=LEAST_W, most_w=MOST_W, shifts=shifts
    )  # fmt: skip


def test_a_load_in_step_is_seen_as_something_else(nvml: Simulation) -> None:
    """It is 78 % off, and the bound of what it could hide says so."""
    window = measured(nvml, shift_pauses_s=0.0)
    error_j = abs(window.integrated_j - window.true_j)
    assert error_j == pytest.approx(0.78 * window.true_j, rel=0.02)
    assert error_j <= bound_j(window, duration_s=BATCHES * BATCH_STEPS * SEEN[1]) * 1.001


def test_shifted_batches_are_seen_as_they_are(nvml: Simulation) -> None:
    """With pauses of up to a sensor period it is 5 % off at most, and the bound after so many shifts is narrower."""
    window = measured(nvml, shift_pauses_s=SEEN[1])
    duration_s = batches(shift_pauses_s=SEEN[1])[-1][0]
    error_j = abs(window.integrated_j - window.true_j)
    assert error_j <= 0.05 * window.true_j
    assert (
        error_j
        <= bound_j(window, duration_s=duration_s, shifts=BATCHES)
        < 0.2 * bound_j(window, duration_s=duration_s)
    )


def test_a_sensor_that_sees_all_hides_nothing() -> None:
    """Whatever the load."""
    assert (
        hidden_j(1000.0, duration_sec=10.0, seen_share=1.0, least_w=50.0, most_w=700.0, shifts=0)
        == hidden_j(1000.0, duration_sec=10.0, seen_share=1.0, least_w=50.0, most_w=700.0, shifts=9)
        == 0.0
    )
