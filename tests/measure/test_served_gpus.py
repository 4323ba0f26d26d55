"""The GPUs of a server: those that it is given, or those on which its processes are found; whoever else is there is told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import events_of
from tests.measure.gpu_host import BRIEF, OWN, GpuHost, GpuRun, gpu
from tests.servers.programs import simulated
from tests.simulated_nvml.scenario import Scenario, uuid_of

pytestmark = pytest.mark.slow  # whole runs of several seconds each


def _measured(run: GpuRun) -> list[str]:
    assert run.done.returncode == 0, run.done.stderr
    return [edges.device_uuid for edges in run.windows()]


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that belongs to no server."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process.pid
        process.kill()


def test_a_server_sees_the_gpus_that_it_is_given_and_no_others(gpu_host: GpuHost) -> None:
    """All of them belong to its one worker, and each one's joules are its own."""
    run = gpu_host.serve(Scenario(gpus=[gpu(index) for index in range(3)]), *BRIEF, *OWN, "--gpu", "0,2")
    assert _measured(run) == [uuid_of(0), uuid_of(2)]
    (started,) = events_of(run.store, "worker", "process_started")
    assert started["environment"]["variables"]["CUDA_VISIBLE_DEVICES"] == f"{uuid_of(0)},{uuid_of(2)}"
    for edges in run.windows():
        assert edges.counted_j == pytest.approx(
            run.truth_of(edges), abs=0.02 * run.highest_w(edges.device_uuid)
        )
    assert run.result()["aggregation"]["gpu_attribution_verified"] is True


def test_the_gpus_of_a_running_server_are_found(gpu_host: GpuHost, stranger: int, tmp_path: Path) -> None:
    """By its process and what it has started; the one of somebody else is not counted."""
    with simulated(tmp_path) as process:
        scenario = Scenario(
            gpus=[
                gpu(0, processes=[process.pid]),
                gpu(1, processes=[process.pid]),
                gpu(2, processes=[stranger]),
            ]
        )
        run = gpu_host.serve(scenario, *BRIEF, "--server", process.address.url)
        assert _measured(run) == [uuid_of(0), uuid_of(1)]
    assert run.result()["aggregation"]["gpu_attribution_verified"] is True


def test_a_stranger_on_a_servers_gpu_is_told(gpu_host: GpuHost, stranger: int, tmp_path: Path) -> None:
    """The energy is not the server's alone, so the result is not valid and its attribution not verified."""
    with simulated(tmp_path) as process:
        scenario = Scenario(gpus=[gpu(0, processes=[process.pid, stranger]), gpu(1)])
        run = gpu_host.serve(scenario, *BRIEF, "--server", process.address.url)
    assert _measured(run) == [uuid_of(0)]
    assert str(stranger) in run.warnings()["other_process_on_gpu"]
    result = run.result()
    assert result["aggregation"]["gpu_attribution_verified"] is False
    assert "other_process_on_gpu" in {reason["code"] for reason in result["invalid_reasons"]}


def test_named_gpus_win_over_found_ones(gpu_host: GpuHost, tmp_path: Path) -> None:
    """A server in a container has other process ids, so its GPUs are named."""
    with simulated(tmp_path) as process:
        scenario = Scenario(gpus=[gpu(0, processes=[os.getpid()]), gpu(1)])
        run = gpu_host.serve(scenario, *BRIEF, "--server", process.address.url, "--gpu", "1")
    assert _measured(run) == [uuid_of(1)]


def test_a_server_on_no_gpu_is_told(gpu_host: GpuHost, tmp_path: Path) -> None:
    """The meter that reads GPUs has nothing to read."""
    with simulated(tmp_path) as process:
        run = gpu_host.serve(Scenario(gpus=[gpu(0)]), *BRIEF, "--server", process.address.url)
    assert run.done.returncode == 2 and "meter nvml" in run.done.stderr
