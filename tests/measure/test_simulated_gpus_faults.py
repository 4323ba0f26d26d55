"""Every fault of a GPU in the middle of a run: the run ends in time, and no figure is wrong without a word."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import bare_events, segments
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import GpuHost, GpuRun, gpu
from tests.simulated_nvml.scenario import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, Fault, Gpu, Scenario

# the most that a fault may delay the end of a run, on a machine on which other things run: half of what a call takes that hangs
GRACE_S = 30.0
AFTER_S = 2.7  # what the window has to have left when the fault comes: a counter is called stuck after 2 s
SOON, LATER = (
    (3.5, 4.5),
    (8.0, 8.0),
)  # second of the fault, length of the window: later where more has to start

# whole runs of several seconds each, three of them where the machine is slow
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LAST = ((8.0, 10.0), (25.0, 30.0), (60.0, 65.0))  # on a slow machine

HEALTHY, LOST, RESET, STUCK, JUMPED, POWERLESS, FORBIDDEN, SLOW = range(8)


def broken_gpus(fault_s: float) -> list[Gpu]:
    """One GPU in order, and one for each fault."""
    troubles: dict[int, dict[str, Any]] = {
        HEALTHY: {},
        LOST: {"faults": [Fault(function="all", code=GPU_IS_LOST, from_s=fault_s)]},
        RESET: {"counter_reset_s": fault_s},
        STUCK: {"counter_stuck_s": fault_s},
        JUMPED: {"counter_jump": (fault_s, 50_000_000)},
        POWERLESS: {"faults": [Fault(function="power", code=NOT_SUPPORTED, from_s=fault_s)]},
        FORBIDDEN: {"faults": [Fault(function="energy", code=NO_PERMISSION, from_s=fault_s)]},
        SLOW: {"faults": [Fault(function="fields", from_s=fault_s, until_s=fault_s + 0.5, slow_ms=900.0)]},
    }
    return [gpu(index, **about) for index, about in troubles.items()]


def measure_through(
    gpu_host: GpuHost,
    scenario: Callable[[float], Scenario],
    *arguments: object,
    first: tuple[float, float] = SOON,
) -> GpuRun:
    """A run in whose measurement window the fault lies; later and longer where the machine was too slow for the first."""
    for fault_s, window_s in (first, *LAST):
        planned = ("--set", f"workload.min_duration_s={window_s}", "--set", "validity.min_duration_s=0")
        run = gpu_host.measure(scenario(fault_s), *planned, *arguments)
        at_s = [(edges.opened["at_ns"] - run.epoch_ns) / 1e9 for edges in run.windows()]
        whole = len(at_s) == len(run.scenario.gpus)
        if whole and max(at_s) < fault_s and min(at_s) + window_s > fault_s + AFTER_S:
            with delays():
                assert ended_s(run) < max(at_s) + window_s + GRACE_S
            return run
    pytest.fail("the fault never fell into the measurement window")


def ended_s(run: GpuRun) -> float:
    """When all of its processes had ended, after its start; its tables come after that."""
    (path,) = segments(run.store, "supervisor")
    ends_ns = [at_ns for name, _, at_ns, _ in bare_events(path) if name == "experiment_completed"]
    return (ends_ns[0] - run.epoch_ns) / 1e9


@dataclass(frozen=True)
class Seen:
    """What became of one GPU: its row in the tables, and the codes of its warnings."""

    row: dict[str, Any]
    codes: set[str]
    truth_j: float


def seen(run: GpuRun) -> list[Seen]:
    rows = run.query("SELECT * FROM windows WHERE kind = 'measurement' ORDER BY process_index")
    warnings = run.query("SELECT DISTINCT code, device_uuid FROM warnings")
    return [
        Seen(
            row,
            {each["code"] for each in warnings if each["device_uuid"] == row["device_uuid"]},
            run.truth_of(edges),
        )
        for row, edges in zip(rows, run.windows(), strict=True)
    ]


@best_of_rounds
def test_each_fault_stays_with_its_gpu(gpu_host: GpuHost) -> None:
    """A GPU for each fault: what is left of its figures is true and named, the others and the run itself are untouched."""
    run = measure_through(gpu_host, lambda fault_s: Scenario(gpus=broken_gpus(fault_s)), first=LATER)
    assert run.done.returncode == 0, run.done.stderr
    found = seen(run)

    with delays():  # a sampler that stood still says so, too
        assert found[HEALTHY].codes == set()
    assert found[HEALTHY].row["energy_source"] == "counter"
    assert found[HEALTHY].row["energy_j"] == pytest.approx(found[HEALTHY].truth_j, rel=0.02)

    assert found[LOST].codes >= {"gpu_lost", "energy_not_measured"}
    assert found[LOST].row["energy_j"] is None and found[LOST].row["reason"]

    for index, code in ((RESET, "counter_reset"), (STUCK, "counter_stuck"), (JUMPED, "counter_jump")):
        assert code in found[index].codes
        assert (found[index].row["energy_source"], found[index].row["counter_energy_j"]) == (
            "integrated",
            None,
        )
        with delays():
            assert found[index].row["energy_j"] == pytest.approx(found[index].truth_j, rel=0.05)

    assert "nvml_error" in found[POWERLESS].codes
    assert found[POWERLESS].row["integrated_energy_j"] is None
    assert found[POWERLESS].row["energy_j"] == pytest.approx(found[POWERLESS].truth_j, rel=0.02)

    assert "nvml_error" in found[FORBIDDEN].codes
    assert found[FORBIDDEN].row["energy_source"] == "integrated"
    with delays():
        assert found[FORBIDDEN].row["energy_j"] == pytest.approx(found[FORBIDDEN].truth_j, rel=0.05)

    assert "slow_driver" in found[SLOW].codes
    assert found[SLOW].row["energy_j"] == pytest.approx(found[SLOW].truth_j, rel=0.02)

    assert run.result()["total_energy_j"] is None
    assert "energy_not_measured" in {reason["code"] for reason in run.result()["invalid_reasons"]}


@best_of_rounds
def test_a_gpu_that_is_lost_has_no_energy(gpu_host: GpuHost) -> None:
    """Half of a window is not a figure: NULL with the reason, not valid, and 1 under --strict."""
    run = measure_through(
        gpu_host,
        lambda fault_s: Scenario(
            gpus=[gpu(0, faults=[Fault(function="all", code=GPU_IS_LOST, from_s=fault_s)])]
        ),
        "--strict",
    )
    assert run.done.returncode == 1
    (only,) = seen(run)
    assert only.codes >= {"gpu_lost", "energy_not_measured"}
    assert only.row["energy_j"] is None and only.row["reason"]
    assert run.result()["total_energy_j"] is None


@best_of_rounds
def test_a_driver_restart_leaves_the_integral(gpu_host: GpuHost) -> None:
    """Half a second without a driver: the counter is not used again, the gap is told, the power before and after is."""
    run = measure_through(gpu_host, lambda fault_s: Scenario(gpus=[gpu(0)], restart=(fault_s, 0.5)))
    assert run.done.returncode == 0, run.done.stderr
    (only,) = seen(run)
    assert "driver_restarted" in only.codes
    assert (only.row["energy_source"], only.row["counter_energy_j"]) == ("integrated", None)
    with delays():
        assert only.row["energy_j"] == pytest.approx(only.truth_j, rel=0.15)
    assert "sample_gap" in {reason["code"] for reason in run.result()["invalid_reasons"]}


@best_of_rounds
def test_a_driver_that_hangs_does_not_hold_up_the_run(gpu_host: GpuHost) -> None:
    """A call that takes a minute: the run ends without it, the energy is NULL with the reason, and --strict gives 1."""

    def scenario(fault_s: float) -> Scenario:
        return Scenario(gpus=[gpu(0, faults=[Fault(function="fields", from_s=fault_s, slow_ms=60_000.0)])])

    run = measure_through(gpu_host, scenario, "--strict")
    assert run.done.returncode == 1
    (only,) = seen(run)
    assert only.row["energy_j"] is None and only.row["reason"]
    assert "Traceback" not in run.done.stderr


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ([Fault(function=name, code=NO_PERMISSION) for name in ("energy", "power")], "no permission"),
        ([Fault(function=name, code=NOT_SUPPORTED) for name in ("energy", "power")], "not supported"),
    ],
    ids=["no permission", "not supported"],
)
def test_what_was_never_readable_is_null_with_a_reason(
    gpu_host: GpuHost, faults: list[Fault], reason: str
) -> None:
    """Neither counter nor power: no joules, no watts, and why; under --strict the status is 1."""
    run = gpu_host.measure(Scenario(gpus=[gpu(0, faults=faults)]), "--strict")
    assert run.done.returncode == 1
    (only,) = seen(run)
    assert {only.row[name] for name in ("energy_j", "mean_power_w", "energy_uncertainty_j")} == {None}
    assert reason in only.row["reason"]
    assert run.result()["total_energy_j"] is None
