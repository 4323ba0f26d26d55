"""Whole runs on simulated GPUs: every device is measured once, the right one, and its energy is the truth."""

import pytest

from tests.conftest import events_of
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import Edges, GpuHost, GpuRun, gpus

TICK_S = 0.02


def tolerance_j(run: GpuRun, edges: Edges) -> float:
    """1 % and one tick at the highest power."""
    return 0.01 * run.truth_of(edges) + TICK_S * run.highest_w(edges.device_uuid)


def assert_every_window_is_true(run: GpuRun, windows: list[Edges]) -> None:
    for edges in windows:
        assert edges.counted_j == pytest.approx(run.truth_of(edges), abs=tolerance_j(run, edges)), edges


def assert_rows_are_true(run: GpuRun, windows: list[Edges]) -> None:
    """The tables say of every device and window what the simulator knows of it."""
    rows = run.query(
        "SELECT process_index, device_uuid, energy_j, integrated_energy_j, energy_source FROM windows WHERE kind = 'measurement'"
    )
    by_device = {(row["process_index"], row["device_uuid"]): row for row in rows}
    assert len(by_device) == len(rows) == len(windows)
    for edges in windows:
        row, truth_j = by_device[edges.process_index, edges.device_uuid], run.truth_of(edges)
        assert row["energy_source"] == "counter"
        assert row["energy_j"] == pytest.approx(truth_j, abs=tolerance_j(run, edges))
        with delays():
            assert row["integrated_energy_j"] == pytest.approx(truth_j, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8])
@best_of_rounds
def test_one_worker_for_each_gpu(gpu_host: GpuHost, count: int) -> None:
    """Every worker measures its own GPU, and the total is the sum of all."""
    run = gpu_host.measure(gpus(count))
    assert run.done.returncode == 0, run.done.stderr
    windows = run.windows()
    assert [edges.process_index for edges in windows] == list(range(count))
    assert len({edges.device_uuid for edges in windows}) == count
    assert_every_window_is_true(run, windows)
    assert_rows_are_true(run, windows)
    result = run.result()
    truth_j = sum(map(run.truth_of, windows))
    tolerance = sum(tolerance_j(run, edges) for edges in windows)
    assert result["total_energy_j"] == pytest.approx(truth_j, abs=tolerance)
    assert result["aggregation"]["gpu_attribution_verified"] is True


@pytest.mark.slow
@best_of_rounds
def test_one_worker_over_two_gpus(gpu_host: GpuHost) -> None:
    """A worker's energy is the sum of its GPUs'."""
    run = gpu_host.measure(gpus(2), "--set", "devices.gpus_per_worker=2")
    assert run.done.returncode == 0, run.done.stderr
    windows = run.windows()
    assert [edges.process_index for edges in windows] == [0, 0]
    assert_every_window_is_true(run, windows)
    assert_rows_are_true(run, windows)
    rows = run.query("SELECT total_energy_j FROM raw_process_results")
    assert [row["total_energy_j"] for row in rows] == [run.result()["total_energy_j"]]
    truth_j = sum(map(run.truth_of, windows))
    assert rows[0]["total_energy_j"] == pytest.approx(truth_j, abs=sum(tolerance_j(run, e) for e in windows))


@pytest.mark.slow
def test_two_workers_on_one_gpu_count_it_once(gpu_host: GpuHost) -> None:
    """The GPU's energy over the union of both windows, once; whose it is cannot be told, and the result says so."""
    run = gpu_host.measure(gpus(2), "--gpu", "1", "--workers", 2)
    assert run.done.returncode == 0, run.done.stderr
    first, second = run.windows()
    assert first.device_uuid == second.device_uuid == run.scenario.gpus[1].uuid
    assert_every_window_is_true(run, [first, second])
    opened_ns = min(first.opened["at_ns"], second.opened["at_ns"])
    closed_ns = max(first.closed["at_ns"], second.closed["at_ns"])
    truth_j = run.true_energy_j(first.device_uuid, opened_ns, closed_ns)
    result = run.result()
    assert result["total_energy_j"] == pytest.approx(truth_j, abs=2 * tolerance_j(run, first))
    assert result["aggregation"]["gpu_attribution_verified"] is False
    assert any("shared by processes 0, 1" in text for text in result["aggregation"]["warnings"])


@pytest.mark.slow
def test_the_samplers_devices_are_those_of_the_workers(gpu_host: GpuHost) -> None:
    """Worker and sampler name the same GPU, by the same UUID."""
    run = gpu_host.measure(gpus(3), "--gpu", "2,0")
    started = events_of(run.store, "worker", "process_started")
    metered = events_of(run.store, "sampler", "meter_started")
    expected = [[run.scenario.gpus[2].uuid], [run.scenario.gpus[0].uuid]]
    assert [[device["uuid"] for device in body["devices"]] for body in started] == expected
    assert [[each["device"]["uuid"] for each in body["devices"]] for body in metered] == expected
