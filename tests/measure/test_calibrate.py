"""A calibration loads devices in a known way, says what their sensors make of it, and is relied on by later runs of the same device and driver."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llem.errors import MeasureError
from llem.measure.calibration_load import MODULE
from llem.measure.known_calibrations import claimed, keep, known
from llem.store import Store
from llem_events.events import Device, Estimated, SensorCalibrated
from tests import calibration_run
from tests.cli import fixed_store
from tests.conftest import Run
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import GpuHost, GpuRun, gpu
from tests.simulated_nvml.scenario import Fault, Gpu, Mig, Scenario
from tests.world import HOST, OFFSET_NS, at

GPU = Device(host="node", uuid="GPU-1", index=0, name="H100", kind="gpu")
AS_LATER = (
    *("--engine", "simulated", "--meter", "nvml", "--set", "windows.baseline_s=0.2"),
    *("--set", "workload.min_duration_s=1.5", "--set", "windows.baseline_after_s=0.1"),
)
SHORT = ("--load", "simulated", "--seconds", "15")
SHORTEST = ("--load", "simulated", "--seconds", "8")


def found(**about: Any) -> SensorCalibrated:
    plain = {"host": "node", "device_uuid": "GPU-1", "driver": "580.1", "sensor": "power_mw"}
    return SensorCalibrated(**{**plain, "averaging_window_s": Estimated(value=1.0), **about})


@pytest.fixture
def runs(tmp_path: Path) -> Store:
    """A store with the experiments that are said to have calibrated."""
    made = Store(tmp_path / "store").create()
    for run in ("first", "second", "new", "old"):
        made.create_experiment(run)
    return made


def kept(runs: Store, calibrated: SensorCalibrated, *, run: str = "first", at_s: float = 100.0) -> None:
    keep(runs, [calibrated], experiment_id=run, calibrated_ns=round(at_s * 1e9))


def test_the_newest_is_known_with_its_origin_and_age(runs: Store) -> None:
    """In whatever order they were written."""
    kept(runs, found(), run="new", at_s=time.time() - 60)
    kept(runs, found(), run="old", at_s=time.time() - 3600)
    newest = known(runs, GPU, driver="580.1")
    assert newest is not None and newest.experiment_id == "new"
    assert 60 <= newest.age_s < 600


@pytest.mark.parametrize(
    "other",
    [
        {"driver": "570.0"},
        {"driver": None},
        {"host": "elsewhere"},
        {"device_uuid": "GPU-2"},
        {"reason": "busy"},
    ],
    ids=str,
)
def test_nothing_else_is_relied_on(runs: Store, other: dict[str, Any]) -> None:
    """Neither of another driver, host or device, nor one of which a reason says that it is wrong."""
    kept(runs, found(**other))
    assert known(runs, GPU, driver="580.1") is None


def test_a_device_is_calibrated_once_at_a_time(runs: Store) -> None:
    """Into one store; another device may be, and the same one afterwards."""
    other = Device(host="node", uuid="GPU-2", index=1, name="H100", kind="gpu")
    second = pytest.raises(MeasureError, match="device GPU-1: found another llem calibrate of it")
    with claimed(runs, [GPU]), claimed(runs, [other]), second, claimed(runs, [GPU]):
        pass
    with claimed(runs, [GPU, other]):
        pass
    assert known(runs, GPU, driver="580.1") is None


def test_each_driver_has_its_own(runs: Store) -> None:
    """Whoever goes back to an earlier one finds what was calibrated under it."""
    kept(runs, found(), run="first", at_s=100)
    kept(runs, found(driver="570.0"), run="second", at_s=200)
    drivers = {driver: known(runs, GPU, driver=driver) for driver in ("580.1", "570.0")}
    assert [each and each.experiment_id for each in drivers.values()] == ["first", "second"]


@pytest.mark.parametrize(
    "text", ["", "{", '[{"experiment_id": 3}]', '[{"experiment_id": "a", "calibrated_ns": 1, "sensors": []}]']
)
def test_a_file_that_cannot_be_understood_is_none(runs: Store, text: str) -> None:
    """It is written anew by the next calibration."""
    kept(runs, found())
    (path,) = runs.calibrations_path.iterdir()
    path.write_text(text)
    assert known(runs, GPU, driver="580.1") is None
    kept(runs, found(), run="second")
    assert known(runs, GPU, driver="580.1") is not None


def test_a_mig_instance_relies_on_its_gpus(runs: Store) -> None:
    """Whose sensors are all that it has."""
    kept(runs, found())
    instance = Device(host="node", uuid="MIG-7", index=0, name="", kind="mig", parent_uuid="GPU-1")
    assert known(runs, instance, driver="580.1") is not None


def test_one_whose_experiment_was_removed_is_not_relied_on(runs: Store) -> None:
    """Whoever found out that it is wrong removes it as any other run."""
    kept(runs, found())
    (runs.log_path / "first").rmdir()
    assert known(runs, GPU, driver="580.1") is None


@pytest.mark.slow
def test_the_log_can_write_it_anew(llem: Run, tmp_path: Path) -> None:
    """As its samples tell today, whatever was known; not of what was relied on, and nothing that has a reason."""
    store = Store(tmp_path / "new").create()
    fixed_store.make_calibrated(store)
    device = Device(host=HOST, uuid="GPU-0", index=0, name="", kind="gpu")
    sensors = [
        found(host=HOST, device_uuid="GPU-0", driver="580.159.04", sensor=name)
        for name in ("power_mw", "power_average_mw")
    ]
    keep(store, sensors, experiment_id=fixed_store.CALIBRATED, calibrated_ns=time.time_ns())
    assert llem("rebuild", "--store", store.path).returncode == 0
    kept_again = known(store, device, driver="580.159.04")
    assert kept_again is not None and kept_again.experiment_id == fixed_store.CALIBRATED
    assert [sensor.sensor for sensor in kept_again.sensors] == ["power_mw"]
    assert kept_again.sensors[0].averaging_window_s.value == pytest.approx(calibration_run.LOOKS_S, rel=0.1)
    assert kept_again.calibrated_ns == at(39.0) + OFFSET_NS


def test_an_older_one_is_known_again_when_the_newest_was_removed(runs: Store) -> None:
    """After a rebuild, which tells all of them again."""
    kept(runs, found(), run="new", at_s=200)
    (runs.log_path / "new").rmdir()
    kept(runs, found(), run="old", at_s=100)
    newest = known(runs, GPU, driver="580.1")
    assert newest is not None and newest.experiment_id == "old"


def test_one_that_is_no_longer_believed_is_forgotten(runs: Store) -> None:
    """A stricter formula may find a reason in the same samples."""
    kept(runs, found())
    kept(runs, found(reason="busy"))
    assert known(runs, GPU, driver="580.1") is None
    assert list(runs.calibrations_path.iterdir()) == []


def test_a_collected_calibration_is_known(llem: Run, runs: Store, tmp_path: Path) -> None:
    """As the store knew it that it came from; what is known already stays."""
    fixed_store.make_calibrated(runs)
    first, second = (
        found(host=HOST, averaging_window_s=Estimated(value=window_s)) for window_s in (1.0, 2.0)
    )
    into = Store(tmp_path / "into")
    for calibrated in (first, second):
        keep(runs, [calibrated], experiment_id=fixed_store.CALIBRATED, calibrated_ns=10**18)
        assert llem("collect", runs.path, "--into", into.path).returncode == 0
    device = Device(host=HOST, uuid="GPU-1", index=0, name="", kind="gpu")
    collected = known(into, device, driver="580.1")
    assert collected is not None and collected.sensors == [first]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--load", "heat"], "load: found 'heat', expected torch or simulated"),
        (["--load", "simulated"], "no simulated driver"),
        (["--meter", "nvml,rapl", "--load", "simulated"], "no simulated driver"),
        (["--seconds", "2"], "--seconds"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_cannot_be_done_is_refused_before_anything_is_stored(
    llem: Run, tmp_path: Path, words: list[str], said: str
) -> None:
    """In one line, with what was found and what was expected."""
    done = llem("calibrate", "--meter", "simulated", *words, "--store", tmp_path / "new")
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_dry_run_says_which_devices_and_how_long(llem: Run, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    words = ("--meter", "simulated", "--gpu", "0,1", "--seconds", "30", "--dry-run")
    done = llem("calibrate", *words, "--store", tmp_path / "new")
    if done.returncode and "no package torch" in done.stderr:
        pytest.skip("its load needs torch")
    first, second, duration = done.stdout.splitlines()
    assert (first.split()[0], second.split()[0]) == ("SIM-0", "SIM-1")
    assert re.match(r"about (2\d|3\d) s of load", duration)
    assert not (tmp_path / "new").exists()


def steady(run: GpuRun) -> GpuRun:
    """The run, unless other work kept its sampler from reading."""
    if "the driver answered every" in run.done.stdout:
        pytest.skip("too much else runs on this machine")
    return run


def calibrated_gpu(**about: Any) -> Gpu:
    return gpu(0, **{"load_w": (90.0, 590.0), "seen": (1.0, 0.1), **about})


@pytest.mark.slow
@best_of_rounds
def test_what_is_calibrated_is_relied_on(gpu_host: GpuHost) -> None:
    """The sensor is found as it is, kept, told by a later run, and not by one under another driver."""
    scenario = Scenario(gpus=[calibrated_gpu(counter_scale=1.05)])
    calibration = steady(gpu_host.run("calibrate", scenario, *SHORT))
    with delays():
        assert calibration.done.returncode == 0, calibration.done.stdout + calibration.done.stderr
    assert "llem: done\nllem: finding out what the sensors saw\n" in calibration.done.stderr
    rows = {row["sensor"]: row for row in calibration.query("from calibrations")}
    with delays():
        assert rows.keys() == {"power_w", "power_average_w"}
        assert rows["power_w"]["power_refresh_sec"] == pytest.approx(0.1, rel=0.1)
        assert rows["power_average_w"]["averaging_window_sec"] == pytest.approx(1.0, rel=0.05)
        assert rows["power_average_w"]["averages"] == "boxcar"
    (run_id,) = {row["experiment_id"] for row in rows.values()}
    later = gpu_host.run("measure", Scenario(gpus=[calibrated_gpu()]), *AS_LATER, in_store_of=calibration)
    assert later.done.returncode == 0, later.done.stderr
    assert f"as calibrated in {run_id}" in later.done.stdout
    other = Scenario(gpus=[calibrated_gpu()], driver="580.1.2")
    assert (
        "as calibrated" not in gpu_host.run("measure", other, *AS_LATER, in_store_of=calibration).done.stdout
    )
    relied = later.query(
        f"SELECT calibrated_by FROM devices WHERE experiment_id > '{run_id}' ORDER BY experiment_id"
    )
    assert [row["calibrated_by"] for row in relied] == [run_id, None]


@pytest.mark.slow
@best_of_rounds
def test_an_average_that_is_not_as_documented_gives_the_truth(gpu_host: GpuHost, tmp_path: Path) -> None:
    """A GPU without a counter, whose mean is over 1.4 s and 60 ms late: what was calibrated is telescoped, and the truth lies in its bound."""
    averaging = gpu(
        0,
        load_w=(90.0, 590.0),
        counter_tick_ms=0.0,
        fields=frozenset(),
        average_s=1.4,
        delay_s=0.06,
        refresh=(0.1, 0.03),
    )
    first, second = (Scenario(gpus=[averaging], settings=str(tmp_path / name)) for name in ("one", "two"))
    calibration = steady(gpu_host.run("calibrate", first, "--load", "simulated", "--seconds", "25"))
    with delays():
        assert calibration.done.returncode == 0, calibration.done.stdout + calibration.done.stderr
    loaded = (sys.executable, "-m", MODULE, "simulated", "10", averaging.uuid)
    run = gpu_host.run("measure", second, *AS_LATER, "--", *loaded, in_store_of=calibration)
    assert run.done.returncode == 0, run.done.stderr
    window = run.query(
        "FROM windows JOIN devices USING (experiment_id) WHERE windows.kind = 'measurement' AND calibrated_by IS NOT NULL"
    )[0]
    truth_j = run.true_energy_j(averaging.uuid, window["opened_ns"], window["closed_ns"])
    with delays():
        assert window["integration"] == "telescoped"
        assert window["energy_j"] == pytest.approx(truth_j, rel=0.02)
    assert abs(window["energy_j"] - truth_j) <= window["energy_uncertainty_j"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"load_w": (90.0, 90.0)}, "does not show"),
        ({"processes": [1]}, "in use"),
        ({"migs": [Mig(uuid="MIG-1")]}, "MIG-1"),
        ({"limit_w": 580.0}, "limit"),
        ({"load_w": None}, "cannot load"),
        ({"faults": [Fault(function="fields", slow_ms=100)]}, "the driver answered every"),
    ],
    ids=["no change", "somebody else's", "a part", "power limit", "a curve", "seldom"],
)
def test_what_says_nothing_is_not_kept(gpu_host: GpuHost, about: dict[str, Any], reason: str) -> None:
    """A reason is told, the status is not 0, and no later run finds anything."""
    run = gpu_host.run("calibrate", Scenario(gpus=[calibrated_gpu(**about)]), *SHORTEST)
    assert run.done.returncode in (1, 2)
    assert reason in run.done.stdout + run.done.stderr or steady(run) is None
    assert not (run.store / "calibrations").exists()


@pytest.mark.slow
@best_of_rounds
def test_a_calibration_that_is_killed_is_kept_as_far_as_it_came(gpu_host: GpuHost) -> None:
    """Its samples stand in the store; nothing is concluded from them, and nothing goes on."""
    run = gpu_host.run("calibrate", Scenario(gpus=[calibrated_gpu()]), *SHORT, killed_after_s=10)
    with delays(subprocess.CalledProcessError):  # where it has hardly begun, there is nothing to ask
        assert run.query("SELECT count(*) > 100 AS many FROM samples") == [{"many": True}]
    assert run.query("SELECT status FROM experiments") == [{"status": "incomplete"}]
    assert run.query("FROM calibrations") == []
    assert not (run.store / "calibrations").exists()
