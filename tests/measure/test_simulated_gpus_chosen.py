"""Whichever way a GPU is named, the one that is measured is the one that the worker runs on."""

import pytest

from tests.conftest import events_of
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import GpuHost, GpuRun, gpu, gpus
from tests.simulated_nvml.scenario import Mig, Scenario, uuid_of

pytestmark = pytest.mark.slow  # whole runs of several seconds each

INSTANCES = [uuid_of(7, prefix="MIG"), uuid_of(8, prefix="MIG")]
BRIEF = ("--set", "workload.min_duration_s=0.3", "--set", "windows.baseline_s=0")


def measured(run: GpuRun) -> list[str]:
    """UUIDs of the devices whose energy the log has, by process."""
    assert run.done.returncode == 0, run.done.stderr
    return [edges.device_uuid for edges in run.windows()]


def seen_by_workers(run: GpuRun) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is in each worker."""
    started = events_of(run.store, "worker", "process_started")
    return [body["environment"]["variables"]["CUDA_VISIBLE_DEVICES"] for body in started]


@pytest.mark.parametrize(
    ("mask", "chosen", "expected"),
    [
        ("2", None, [2]),
        ("2,0", None, [2, 0]),
        ("2,0", "1", [0]),
        (uuid_of(1), None, [1]),
        (f"{uuid_of(2)},{uuid_of(1)}", "0", [2]),
        ("2,1,0", f"{uuid_of(1)},{uuid_of(2)}", [1, 2]),
    ],
    ids=["index", "reordered", "index into a mask", "uuid", "uuids reordered", "uuids into a mask"],
)
def test_the_right_gpu(gpu_host: GpuHost, mask: str, chosen: str | None, expected: list[int]) -> None:
    """The log's GPU is the one meant, the worker sees that one alone, and the joules are that one's."""
    options = ("--gpu", chosen) if chosen else ()
    run = gpu_host.measure(
        gpus(3), *BRIEF, *options, CUDA_VISIBLE_DEVICES=mask, CUDA_DEVICE_ORDER="PCI_BUS_ID"
    )
    assert measured(run) == seen_by_workers(run) == [uuid_of(index) for index in expected]
    for edges in run.windows():
        tick_j = 0.02 * run.highest_w(edges.device_uuid)
        assert edges.counted_j == pytest.approx(run.truth_of(edges), abs=tick_j)


def divided() -> Scenario:
    """A whole GPU, and one with two MIG instances."""
    return Scenario(gpus=[gpu(0), gpu(1, migs=[Mig(uuid=uuid) for uuid in INSTANCES])])


def test_a_mig_instance_is_labelled_as_its_parent(gpu_host: GpuHost) -> None:
    """The worker runs on the instance; its energy is its parent GPU's, and the log, result and tables say so."""
    run = gpu_host.measure(divided(), *BRIEF, CUDA_VISIBLE_DEVICES=INSTANCES[1])
    assert measured(run) == seen_by_workers(run) == [INSTANCES[1]]
    assert run.windows()[0].counted_j == pytest.approx(run.truth_of(run.windows()[0]), abs=0.02 * 224)
    assert uuid_of(1) in run.warnings()["mig_parent_energy"]
    device = run.query("SELECT kind, parent_uuid FROM devices")[0]
    assert device == {"kind": "mig", "parent_uuid": uuid_of(1)}
    assert any("whole GPU" in text for text in run.result()["measurement_warnings"])


@best_of_rounds
def test_two_instances_of_one_gpu_count_it_once(gpu_host: GpuHost) -> None:
    """Both workers' energy is the same GPU's, so the total has it once."""
    run = gpu_host.measure(divided(), *BRIEF, "--gpu", ",".join(INSTANCES))
    assert measured(run) == seen_by_workers(run) == INSTANCES
    first, second = run.windows()
    opened_ns = min(first.opened["at_ns"], second.opened["at_ns"])
    closed_ns = max(first.closed["at_ns"], second.closed["at_ns"])
    truth_j = run.true_energy_j(INSTANCES[0], opened_ns, closed_ns)
    result = run.result()
    with delays():
        assert result["total_energy_j"] == pytest.approx(truth_j, abs=2 * 0.02 * run.highest_w(INSTANCES[0]))
    assert result["aggregation"]["gpu_attribution_verified"] is False


def test_strict_refuses_a_mig_instance_before_measuring(gpu_host: GpuHost) -> None:
    """Its energy cannot be had: one line, status 2, and nothing written."""
    run = gpu_host.measure(divided(), *BRIEF, "--strict", CUDA_VISIBLE_DEVICES=INSTANCES[0])
    assert run.done.returncode == 2
    assert INSTANCES[0] in run.done.stderr and run.done.stderr.count("\n") == 1
    assert not run.store.exists()


def test_a_gpu_that_is_hidden_is_refused(gpu_host: GpuHost) -> None:
    """A UUID outside CUDA_VISIBLE_DEVICES is not measured behind CUDA's back."""
    run = gpu_host.measure(gpus(2), *BRIEF, "--gpu", uuid_of(1), CUDA_VISIBLE_DEVICES="0")
    assert run.done.returncode == 2
    assert "no such GPU" in run.done.stderr
    assert not run.store.exists()


def test_a_gpu_that_is_named_twice_is_refused(gpu_host: GpuHost) -> None:
    """Two processes on one GPU are asked for otherwise: its energy would stand for one of them alone."""
    run = gpu_host.measure(gpus(2), *BRIEF, "--gpu", f"0,{uuid_of(0)}")
    assert run.done.returncode == 2
    assert uuid_of(0) in run.done.stderr and "--workers 2" in run.done.stderr
    assert not run.store.exists()


@pytest.mark.parametrize("chosen", ["1", None], ids=["named", "not named"])
def test_a_program_runs_on_the_gpus_that_are_named(gpu_host: GpuHost, chosen: str | None) -> None:
    """With --gpu it sees those whose energy is read, and no others; without, what its caller would let it see."""
    program = ("--", "sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-all}; sleep 0.3")
    run = gpu_host.measure(gpus(2), *BRIEF, *(("--gpu", chosen) if chosen else ()), *program)
    assert run.done.stdout.splitlines()[0] == (uuid_of(int(chosen)) if chosen else "all")
    assert measured(run) == ([uuid_of(int(chosen))] if chosen else [uuid_of(0), uuid_of(1)])
