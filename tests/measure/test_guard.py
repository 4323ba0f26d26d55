"""A GPU that tells nothing but a 1 s average is idle for a moment after the measurement, and its energy is the better for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from llem.importers.asked import Asked
from llem.importing import import_result
from llem.store import Store
from tests.conftest import events_of
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import BRIEF, OWN, GpuHost, GpuRun, gpu
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
@pytest.mark.parametrize(
    "what",
    [(), ("--", "sleep", "3"), (*BRIEF, *OWN, "--gpu", "0")],
    ids=["engine", "program", "server"],
)
@best_of_rounds
def test_a_guard_follows_the_measurement(gpu_host: GpuHost, what: tuple[str, ...]) -> None:
    """Of itself, where it is needed: the energy is telescoped, and the trapezoid stands beside it."""
    measure = gpu_host.serve if OWN[-1] in what else gpu_host.measure
    run = measure(Scenario(gpus=[averaging()]), *WITH_LONGER_WINDOW, *what)
    assert run.done.returncode == 0, run.done.stderr
    assert events_of(run.store, "sampler", "meter_started")[0]["sample_hz"] == 50.0
    window, guard = run.query(ASKED)
    assert (window["kind"], guard["kind"]) == ("measurement", "guard")
    with delays():
        assert window["integration"] == "telescoped"
        assert 1.5 <= guard["duration_sec"] <= 4
        assert window["energy_j"] == pytest.approx(240.0 * window["duration_sec"], rel=0.01)
        assert window["trapezoid_energy_j"] == pytest.approx(window["energy_j"], rel=0.05)
        assert 0 < window["energy_uncertainty_j"] < 0.5 * 700


SAMPLED = """
SELECT strftime(at_time, '%Y/%m/%d %H:%M:%S.%g') || ', NVIDIA H100 80GB HBM3, GPU-0, ' || round(power_w, 2) || ' W, 700.00 W' AS line
FROM timed_samples WHERE power_w IS NOT NULL ORDER BY at_ns
"""


@pytest.mark.slow
@best_of_rounds
def test_nvidia_smis_log_of_the_same_run_says_the_same(gpu_host: GpuHost, tmp_path: Path) -> None:
    """The readings of the driver, as nvidia-smi writes them, telescope to the run's own energy and bound."""
    run = gpu_host.measure(Scenario(gpus=[averaging()]), *WITH_LONGER_WINDOW)
    assert run.done.returncode == 0, run.done.stderr
    (window,) = run.query(
        "SELECT start_time::VARCHAR AS opened, end_time::VARCHAR AS closed FROM windows WHERE kind = 'measurement'"
    )
    lines = [str(row["line"]) for row in run.query(SAMPLED)]
    (log := tmp_path / "power.csv").write_text(
        "\n".join(["timestamp, name, uuid, power.draw [W], power.limit [W]", *lines]) + "\n"
    )
    store = Store(tmp_path / "imported").create()
    import_result(log, store, asked=Asked(timezone="UTC", window=f"{window['opened']},{window['closed']}"))
    own, imported = measured(run), measured(replace(run, store=store.path))
    with delays():
        assert (own["integration"], imported["integration"]) == ("telescoped", "telescoped")
        assert imported["energy_j"] == pytest.approx(own["energy_j"], rel=2e-3)
        assert imported["energy_uncertainty_j"] == pytest.approx(own["energy_uncertainty_j"], rel=0.2)


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
