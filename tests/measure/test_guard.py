"""A GPU that tells nothing but a 1 s average is idle for a moment after the measurement, and its energy is the better for it."""

import pytest

from tests.conftest import events_of
from tests.measure.gpu_host import GpuHost, GpuRun, gpu
from tests.simulated_nvml.scenario import Gpu, Scenario, constant

ASKED = (
    "SELECT kind, duration_sec, energy_j, integration, trapezoid_energy_j, energy_uncertainty_j FROM windows "
    "WHERE kind IN ('measurement', 'guard') ORDER BY opened_ns"
)
WITH_LONGER_WINDOW = ("--set", "workload.min_duration_s=3")


def averaging() -> Gpu:
    return gpu(0, curve=constant(240.0), counter_tick_ms=0.0, fields=frozenset(), refresh=(0.1, 0.03))


def measured(run: GpuRun) -> dict[str, object]:
    (row,) = (row for row in run.query(ASKED) if row["kind"] == "measurement")
    return row


@pytest.mark.slow
@pytest.mark.parametrize("program", [(), ("--", "sleep", "3")], ids=["engine", "program"])
def test_a_guard_follows_the_measurement(gpu_host: GpuHost, program: tuple[str, ...]) -> None:
    """Of itself, where it is needed: the energy is telescoped, and the trapezoid stands beside it."""
    run = gpu_host.measure(Scenario(gpus=[averaging()]), *WITH_LONGER_WINDOW, *program)
    assert run.done.returncode == 0, run.done.stderr
    assert events_of(run.store, "sampler", "meter_started")[0]["sample_hz"] == 50.0
    window, guard = run.query(ASKED)
    assert (window["kind"], window["integration"], guard["kind"]) == ("measurement", "telescoped", "guard")
    assert 1.5 <= guard["duration_sec"] <= 4
    assert window["energy_j"] == pytest.approx(240.0 * window["duration_sec"], rel=0.01)
    assert window["trapezoid_energy_j"] == pytest.approx(window["energy_j"], rel=0.05)
    assert 0 < window["energy_uncertainty_j"] < 0.5 * 700


@pytest.mark.slow
def test_no_guard_by_wish(gpu_host: GpuHost) -> None:
    """The plan can leave it out; the trapezoid and its bound stand, as before."""
    run = gpu_host.measure(Scenario(gpus=[averaging()]), *WITH_LONGER_WINDOW, "--set", "windows.guard_s=0")
    assert run.done.returncode == 0, run.done.stderr
    window = measured(run)
    assert window["integration"] == "trapezoid" and window["energy_uncertainty_j"] >= 0.5 * 700
    assert window["energy_j"] == window["trapezoid_energy_j"]


@pytest.mark.slow
def test_a_device_with_a_counter_needs_none(gpu_host: GpuHost) -> None:
    """Nothing waits, and the counter is the figure."""
    run = gpu_host.measure(Scenario(gpus=[gpu(0)]))
    assert run.done.returncode == 0, run.done.stderr
    (window,) = run.query(ASKED)
    assert window["kind"] == "measurement" and window["integration"] == "trapezoid"
