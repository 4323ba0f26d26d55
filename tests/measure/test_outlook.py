"""What --dry-run tells of the time and the devices of a measurement, beside its plan."""

from tests.conftest import Run
from tests.measure.gpu_host import GpuHost, gpu
from tests.simulated_nvml.scenario import Scenario, constant

DRY = ("measure", "--dry-run", "--engine", "simulated")


def test_a_dry_run_tells_time_devices_and_log(llem: Run) -> None:
    """On stderr, so that what stands on stdout is a plan; of a program only what is around it is known."""
    done = llem(*DRY, "--meter", "simulated", "--set", "workload.min_duration_s=20")
    assert "at least 26 s: idling 3 s, measuring 20 s, idling 2 s and loading" in done.stderr
    assert "1 device read 100 times a second: SIM-0" in done.stderr
    assert "MB of log" in done.stderr and "llem:" not in done.stdout
    program = llem("measure", "--dry-run", "--meter", "simulated", "--", "true")
    assert "at least 4 s: idling 3 s and the program" in program.stderr


def test_a_dry_run_of_several_loads_tells_all_of_them(llem: Run) -> None:
    """Idling with the server and measuring are each load's own; a server that runs is never idled without."""
    done = llem("measure", "--dry-run", "--server", "simulated", "--meter", "simulated", "--rate", "4,8")
    parts = "idling 3 s, idling with the server 6 s, measuring 24 s, idling 2 s and loading"
    limits = "a warm-up of at most 30 s, a drain of at most 30 s each"
    assert f"at least 37 s for 2 loads: {parts}, {limits}" in done.stderr


def test_a_dry_run_tells_what_the_guard_of_an_averaging_gpu_costs(gpu_host: GpuHost) -> None:
    """It follows from the device, not from the plan alone."""
    averaging = gpu(0, curve=constant(240.0), counter_tick_ms=0.0, fields=frozenset(), refresh=(0.1, 0.03))
    done = gpu_host.run(DRY[0], Scenario(gpus=[averaging]), *DRY[1:], "--meter", "nvml").done
    assert "measuring 12 s, guard 1.6 s, idling 2 s" in done.stderr, done.stderr
    assert "1 device read 50 times a second" in done.stderr


def test_a_plan_for_another_machine_is_written_all_the_same(llem: Run) -> None:
    """With why it cannot be measured here."""
    done = llem(*DRY, "--meter", "rapl", LLEM_POWERCAP="/nowhere")
    assert done.returncode == 0 and "[windows]" in done.stdout
    assert "it cannot be measured on this machine: meter rapl: found no intel-rapl package" in done.stderr
