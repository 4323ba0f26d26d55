"""GPUs without an energy counter: the error is bounded, the bound is reported, and the truth lies inside it."""

import pytest

from llem.meters.nvml import NvmlMeter, resolve_gpus
from llem.results import energy_between_j
from llem.results.power import integral_uncertainty_j
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import GpuHost, gpu
from tests.simulated_nvml.build import Simulation, in_this_process, installed
from tests.simulated_nvml.scenario import Gpu, Row, Scenario, square
from tests.simulated_nvml.window import CURVES

pytestmark = pytest.mark.slow  # whole runs of several seconds each

SQUARE = square(650.0, 90.0, period_s=0.7)
NO_COUNTER = {"counter_tick_ms": 0.0}
ONLY_AVERAGE = {**NO_COUNTER, "fields": frozenset[str]()}
HZ = 20.0


@pytest.mark.parametrize("about", [NO_COUNTER, ONLY_AVERAGE], ids=["instant power", "1 s average"])
@best_of_rounds
def test_a_square_wave_without_a_counter(gpu_host: GpuHost, about: dict[str, object]) -> None:
    """A whole run: the energy is integrated, its bound is in windows, processes and result, and holds."""
    scenario = Scenario(gpus=[gpu(0, curve=SQUARE, **about)])
    run = gpu_host.measure(scenario, "--set", "workload.min_duration_s=3", "--sample-hz", HZ)
    assert run.done.returncode == 0, run.done.stderr
    (row,) = run.query("SELECT * FROM windows WHERE kind = 'measurement'")
    truth_j = run.true_energy_j(row["device_uuid"], row["opened_ns"], row["closed_ns"])
    assert (row["energy_source"], row["counter_energy_j"]) == ("integrated", None)
    with delays():  # where no edge of the wave lies between two samples
        assert abs(row["energy_j"] - truth_j) <= row["energy_uncertainty_j"] < truth_j
    result = run.result()
    (process,) = result["process_results"]
    assert result["energy_uncertainty_j"] == pytest.approx(row["energy_uncertainty_j"])
    assert process["energy_metrics"]["energy_uncertainty_j"] == pytest.approx(row["energy_uncertainty_j"])


@best_of_rounds
def test_a_counter_is_known_to_a_tick(gpu_host: GpuHost) -> None:
    """With a counter the bound is what the GPU uses in a tick at most, and it holds."""
    run = gpu_host.measure(Scenario(gpus=[gpu(0, curve=SQUARE)]), "--set", "workload.min_duration_s=2")
    (row,) = run.query("SELECT * FROM windows WHERE kind = 'measurement'")
    (edges,) = run.windows()
    assert abs(row["energy_j"] - run.truth_of(edges)) <= row["energy_uncertainty_j"]
    with delays():
        assert row["energy_uncertainty_j"] == pytest.approx(0.02 * 650.0, rel=0.2)


def measure_blindly(nvml: Simulation, about: Gpu, *, window_s: float) -> tuple[float, float, float]:
    """Integrated energy, its bound, and the truth, in simulated time."""
    clock = nvml.clock
    meter = NvmlMeter(resolve_gpus(None), clock=clock)
    window_ns = (meter.devices()[0].power_window_ns) or 0
    start_ns, samples = clock.now_ns(), []
    due_ns = start_ns
    while due_ns <= start_ns + window_s * 1e9:
        samples.append(meter.read()[0])
        due_ns += round(1e9 / HZ)
        clock.sleep_s(max(0, due_ns - clock.now_ns()) / 1e9)
    meter.close()
    at_sec = [(sample.at_ns - start_ns) / 1e9 for sample in samples]
    power_w = [(sample.power_mw or 0) / 1000 for sample in samples]
    span = {"start_sec": at_sec[0], "end_sec": at_sec[-1]}
    energy_j = energy_between_j(at_sec, power_w, **span)
    bound_j = integral_uncertainty_j(
        at_sec, power_w, **span, power_window_sec=window_ns / 1e9, power_limit_w=about.limit_w
    )
    assert energy_j is not None and bound_j is not None
    return energy_j, bound_j, nvml.true_energy_j(0, samples[0].at_ns, samples[-1].at_ns)


@pytest.mark.parametrize("window_s", [2.0, 12.0, 60.0])
@pytest.mark.parametrize("sees", [NO_COUNTER, ONLY_AVERAGE], ids=["instant power", "1 s average"])
@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.usefixtures("simulated_nvml")
def test_the_truth_lies_inside_the_bound(
    curve: tuple[Row, ...], sees: dict[str, object], window_s: float
) -> None:
    """Every curve and length, in simulated time."""
    about = gpu(0, curve=curve, **sees)
    with installed(Scenario(gpus=[about])):
        energy_j, bound_j, true_j = measure_blindly(in_this_process(), about, window_s=window_s)
    assert abs(energy_j - true_j) <= bound_j + 0.001 * true_j
