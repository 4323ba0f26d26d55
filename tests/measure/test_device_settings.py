"""Settings of devices: set for the run, read back, refused with a reason, and put back whatever ends the run."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from llem.errors import LlemError, MeasureError, MeterError, PlanError
from llem.measure.device_settings import DeviceSettings, check_settings, file_name, left, put_back_left
from llem.measure.guardian import guardian
from llem.meters import nvml_settings, settings_module, simulated_settings
from llem.meters.nvml import resolve_gpus
from llem.meters.simulated import SimulatedMeter
from llem.plan import SimulatedMeterPlan
from llem.process_tree import descendants
from llem_events.events import Device
from tests.conftest import CALM, LLEM, Run, command_line, events_of, segments, wait_until
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import LIMIT_S, ON_GPUS, GpuHost
from tests.simulated_nvml.build import environment, has_compiler, installed
from tests.simulated_nvml.scenario import NO_PERMISSION, Fault, Gpu, Mig, Scenario, constant, uuid_of

needs_compiler = pytest.mark.skipif(
    not has_compiler(), reason="no C compiler: the simulated NVML cannot be built"
)
KILLS = int(os.environ.get("LLEM_KILLS", "10"))
BACK_S = 2.0
# of a machine on which other things run
SLACK_S = 3.0
LIMIT_W = 350.0
MODULES = {"worker": "llem.measure.worker", "sampler": "llem.measure.sampler"}
DEVICE = Device(host="a", uuid="SIM-0", index=0, name="simulated device", kind="simulated")


@pytest.fixture(autouse=True)
def simulated_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What simulated devices are set to is this test's own."""
    file = tmp_path / "simulated.json"
    monkeypatch.setenv(simulated_settings.VARIABLE, str(file))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's folder of what is still to be put back."""
    return tmp_path / "settings"


def limit_w() -> float | None:
    """Of the simulated device, now."""
    return simulated_settings.read(DEVICE, "power_limit_w")


def set_devices(folder: Path, **asked: float) -> DeviceSettings:
    """Set as a guardian does it."""
    settings = DeviceSettings(folder)
    settings.change(asked, [DEVICE], meter="simulated", experiment_id="run-1")
    return settings


def lose(settings: DeviceSettings) -> None:
    """What is left of a guardian that was killed: its locks are gone, its files are not."""
    for held in settings._held:
        held.release()


def test_what_is_set_is_read_back_and_put_back(folder: Path) -> None:
    """The device is as it was before, and no file is left."""
    settings = DeviceSettings(folder)
    asked = {"power_limit_w": 60.0, "lock_clocks_mhz": 900.0}
    changes = settings.change(asked, [DEVICE], meter="simulated", experiment_id="run-1")
    assert [(change.setting, change.before, change.read_back) for change in changes] == [
        ("power_limit_w", 1000.0, 60.0),
        ("lock_clocks_mhz", None, 900.0),
    ]
    assert (limit_w(), left(folder)) == (60.0, [])
    done = settings.put_back()
    assert [change.asked for change in done.changes if change.restored] == [1000.0, None]
    assert (limit_w(), simulated_settings.read(DEVICE, "lock_clocks_mhz")) == (1000.0, None)
    assert not list(folder.iterdir())


def test_a_device_is_set_by_one_run_at_a_time(folder: Path) -> None:
    """The second is refused, and changes nothing."""
    first = set_devices(folder, power_limit_w=60.0)
    second = DeviceSettings(folder)
    with pytest.raises(MeasureError, match="another run that has set it"):
        second.change({"power_limit_w": 70.0}, [DEVICE], meter="simulated", experiment_id="run-2")
    assert (second.put_back().changes, limit_w()) == ([], 60.0)
    first.put_back()


def test_what_a_killed_guardian_has_left_is_put_back(folder: Path) -> None:
    """Once; it is told before, with the run that left it."""
    lose(set_devices(folder, power_limit_w=60.0))
    (kept,) = left(folder)
    assert str(kept) == "simulated device SIM-0: power_limit_w 60 of run run-1"
    done = put_back_left(folder)
    assert (done.devices, done.problems, limit_w()) == ([str(kept)], [], 1000.0)
    assert put_back_left(folder).changes == []


def test_the_next_run_does_not_take_what_was_left_for_the_devices_own(folder: Path) -> None:
    """It puts back what was there before the run that was killed."""
    lose(set_devices(folder, power_limit_w=60.0))
    set_devices(folder, power_limit_w=70.0).put_back()
    assert limit_w() == 1000.0


def test_a_boot_has_put_everything_back(folder: Path) -> None:
    """A file of an earlier boot is forgotten, and what is set since is left alone; a file of another machine stays."""
    lose(set_devices(folder, power_limit_w=60.0))
    path = folder / file_name(DEVICE.host, DEVICE.uuid)
    table = json.loads(path.read_text())
    path.write_text(json.dumps({**table, "boot_id": "earlier"}))
    assert (put_back_left(folder).devices, path.exists(), limit_w()) == ([], True, 60.0)
    host = os.uname().nodename
    path.write_text(json.dumps({**table, "boot_id": "earlier", "device": {**table["device"], "host": host}}))
    assert (put_back_left(folder).devices, path.exists(), limit_w()) == ([], False, 60.0)


def test_a_torn_file_says_that_nothing_was_set(folder: Path) -> None:
    """It is written before the device is."""
    folder.mkdir()
    (folder / file_name(DEVICE.host, DEVICE.uuid)).write_text('{"device": {"uu')
    assert (left(folder), put_back_left(folder).problems) == ([], [])
    set_devices(folder, power_limit_w=60.0).put_back()


def test_a_guardian_puts_back_when_its_channel_closes(folder: Path) -> None:
    """Whether or not it was told to before, and no stop signal reaches it."""
    with guardian() as started:
        changes = started.set(
            {"power_limit_w": 60.0}, [DEVICE], meter="simulated", folder=folder, experiment_id="run-1"
        )
        started._process.send_signal(signal.SIGTERM)
        assert ([change.read_back for change in changes], limit_w()) == ([60.0], 60.0)
        assert os.getsid(started._process.pid) != os.getsid(0)
    assert limit_w() == 1000.0


def test_what_a_guardian_does_not_do_is_done_for_it(folder: Path) -> None:
    """Where it alone was killed, the run puts back at its end."""
    with guardian() as started:
        started.set(
            {"power_limit_w": 60.0}, [DEVICE], meter="simulated", folder=folder, experiment_id="run-1"
        )
        started._process.kill()
        started._process.wait()
        assert limit_w() == 60.0
        done = started.put_back()
    assert ([change.asked for change in done.changes], done.problems, limit_w()) == ([1000.0], [], 1000.0)
    assert not list(folder.iterdir())


def test_a_simulated_device_draws_no_more_than_its_limit() -> None:
    """Its power and its energy counter both follow the limited curve."""
    meter_plan = SimulatedMeterPlan(curve=[(0.0, 50.0), (1.0, 150.0), (1.0, 20.0), (2.0, 20.0)])
    (free,) = SimulatedMeter(meter_plan)._curves
    simulated_settings.write(DEVICE, "power_limit_w", 100.0)
    (limited,) = SimulatedMeter(meter_plan)._curves
    assert [limited.power_w(at_s) for at_s in (0.25, 0.5, 0.75, 1.5)] == [75.0, 100.0, 100.0, 20.0]
    assert free.energy_j(2.0) - limited.energy_j(2.0) == pytest.approx(50 * 0.5 / 2)


@pytest.mark.slow
def test_wrong_settings_are_refused_before_anything_is_set(llem: Run, store: Path) -> None:
    """Beyond the device's range, and without a GPU."""
    simulated = ("measure", "--engine", "simulated", "--meter", "simulated")
    far = llem(*simulated, "--gpu", "0", "--set", "devices.power_limit_w=5000")
    assert (far.returncode, "found 5000 for GPU 0" in far.stderr, "expected 1 to 1000" in far.stderr) == (
        2,
        True,
        True,
    )
    nowhere = llem(*simulated, "--set", "devices.lock_clocks_mhz=900")
    assert (nowhere.returncode, "name one: --gpu 0, or devices.gpus" in nowhere.stderr) == (2, True)
    assert not store.exists()


def test_vendors_that_are_not_set_are_refused_by_name() -> None:
    """With those that are."""
    with pytest.raises(MeterError, match="found GPUs of the meter amd, expected those of nvml or simulated"):
        settings_module("amd")


def on_nvml(*, functions: tuple[str, ...] = (), **about: object) -> Scenario:
    """Two GPUs, of which the second refuses these functions."""
    refusing = [Fault(function=function, code=NO_PERMISSION) for function in functions]
    gpus = [Gpu(uuid=uuid_of(index), curve=constant(600.0)) for index in range(2)]
    return Scenario(gpus=[gpus[0], msgspec.structs.replace(gpus[1], faults=refusing, **about)])


@pytest.mark.slow
def test_a_simulated_device_is_set_for_a_run(llem: Run, store: Path) -> None:
    """Of the public meter, under an engine and under a wrapped program."""
    limited = (
        *("--meter", "simulated", "--gpu", "0", "--set", "devices.power_limit_w=60"),
        *("--set", "windows.baseline_s=0.2", "--set", "windows.baseline_after_s=0.1"),
    )
    engine = ("--engine", "simulated", "--set", "workload.min_duration_s=0.6")
    for arguments in ((*engine, *limited), (*limited, "--", "sleep", "0.5")):
        done = llem("measure", *arguments)
        assert done.returncode == 0, done.stderr
        assert limit_w() == 1000.0
    rows = json.loads(
        llem("query", "SELECT power_limit_set_w, mean_power_w FROM experiment_results", "-f", "json").stdout
    )
    assert [row["power_limit_set_w"] for row in rows] == [60.0, 60.0]
    assert [row["mean_power_w"] for row in rows] == pytest.approx([60.0, 60.0], rel=0.05)


@needs_compiler
def test_nvml_is_set_within_the_boards_range(folder: Path) -> None:
    """Power limit and clocks, with the range that the driver tells; a lock cannot be read back, and says so."""
    with installed(on_nvml()):
        devices = resolve_gpus(None)
        asked = {"power_limit_w": 350.0, "lock_clocks_mhz": 1200.0}
        check_settings(asked, devices, meter="nvml")
        with pytest.raises(PlanError, match=r"found 100 for GPU 0 .*, expected 200 to 700"):
            check_settings({"power_limit_w": 100.0}, devices, meter="nvml")
        with pytest.raises(PlanError, match=r"found 3000 for GPU 0 .*, expected 345 to 1980"):
            check_settings({"lock_clocks_mhz": 3000.0}, devices, meter="nvml")
        settings = DeviceSettings(folder)
        changes = settings.change(asked, devices, meter="nvml", experiment_id="run-1")
        assert [(change.read_back, change.reason) for change in changes[:2]] == [
            (350.0, None),
            (None, "the driver does not tell"),
        ]
        settings.put_back()
        with nvml_settings.driver():
            assert [nvml_settings.read(device, "power_limit_w") for device in devices] == [700.0, 700.0]


@needs_compiler
@pytest.mark.parametrize("setting", ["power_limit_w", "lock_clocks_mhz"])
def test_without_permission_nothing_stays_set(folder: Path, setting: str) -> None:
    """The error has the command that grants it; the GPU that was set before is put back."""
    function = {"power_limit_w": "set_limit", "lock_clocks_mhz": "set_clocks"}[setting]
    with installed(on_nvml(functions=(function,))):
        devices = resolve_gpus(None)
        settings = DeviceSettings(folder)
        with pytest.raises(MeterError, match=f"{setting} of GPU 1 .*: found no permission.*; sudo -E"):
            settings.change({setting: 350.0}, devices, meter="nvml", experiment_id="run-1")
        done = settings.put_back()
        assert ([change.device_uuid for change in done.changes], done.problems) == ([uuid_of(0)], [])
        with nvml_settings.driver():
            assert nvml_settings.read(devices[0], "power_limit_w") == 700.0


@needs_compiler
def test_an_instance_of_a_gpu_is_not_set(folder: Path) -> None:
    """Its limit is its whole GPU's."""
    with (
        installed(on_nvml(migs=[Mig(uuid=uuid_of(1, prefix="MIG"))])),
        pytest.raises(LlemError, match="a MIG instance of GPU-"),
    ):
        check_settings({"power_limit_w": 350.0}, resolve_gpus(None), meter="nvml")


def scenario(tmp_path: Path) -> Scenario:
    """A GPU at its limit of 700 W, whose settings all processes share."""
    only = Gpu(uuid=uuid_of(0), curve=constant(700.0), counter_tick_ms=20.0)
    return Scenario(gpus=[only], settings=str(tmp_path / "driver"))


def limits_w(tmp_path: Path) -> list[tuple[int, float]]:
    """Every limit that the simulated driver was set to, with the moment on the monotonic clock."""
    path = tmp_path / "driver"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(at_ns), int(mw) / 1000) for at_ns, _, what, mw in lines if what == "limit"]


@pytest.mark.slow
def test_a_run_under_a_limit_says_what_was_really_set(gpu_host: GpuHost, tmp_path: Path) -> None:
    """In the log, the tables and the result; its energy is that of the limit, and keeping to it is no fault."""
    run = gpu_host.measure(
        scenario(tmp_path),
        *("--set", "devices.power_limit_w=350", "--set", "devices.lock_clocks_mhz=1200"),
        *("--label", "what=limit"),
        *CALM,
    )
    assert run.done.returncode == 0, run.done.stderr
    changes = events_of(run.store, "supervisor", "device_setting_changed")
    assert [(change["setting"], change["asked"], change.get("restored", False)) for change in changes] == [
        ("power_limit_w", 350.0, False),
        ("lock_clocks_mhz", 1200.0, False),
        ("power_limit_w", 700.0, True),
        ("lock_clocks_mhz", None, True),
    ]
    (row,) = run.query(
        "SELECT r.power_limit_set_w, r.clocks_locked_mhz, d.power_limit_w, r.mean_power_w FROM experiment_results r JOIN devices d USING (experiment_id)"
    )
    assert list(row.values())[:3] == [350.0, 1200.0, 350.0]
    assert row["mean_power_w"] == pytest.approx(350.0, rel=0.03)
    assert [reason["code"] for reason in run.result()["invalid_reasons"]] == ["too_short"]
    assert [limit for _, limit in limits_w(tmp_path)] == [350.0, 700.0]
    assert not list((run.store / "settings").iterdir())


@pytest.mark.slow
def test_a_run_without_permission_leaves_nothing(gpu_host: GpuHost, tmp_path: Path) -> None:
    """Status 2, the command that grants it, no experiment."""
    refusing = scenario(tmp_path)
    refusing.gpus[0].faults.append(Fault(function="set_limit", code=NO_PERMISSION))
    run = gpu_host.measure(refusing, "--set", "devices.power_limit_w=350")
    assert (run.done.returncode, "sudo -E" in run.done.stderr) == (2, True), run.done.stderr
    assert segments(run.store) == [] and not list((run.store / "settings").iterdir())


def start(library: Path, tmp_path: Path) -> subprocess.Popen[str]:
    """A run of some seconds under a limit."""
    surroundings = {**environment(scenario(tmp_path), library), "LLEM_DIR": str(tmp_path / "store")}
    command = [LLEM, "measure", *ON_GPUS, "--set", f"devices.power_limit_w={LIMIT_W:g}"]
    return subprocess.Popen(command, env=surroundings, stderr=subprocess.PIPE, text=True)


def pid_of(who: str, llem: int) -> int | None:
    """None where it is not there yet, or not there any more."""
    if who == "supervisor":
        return llem
    return next((pid for pid in descendants(llem) if MODULES[who] in command_line(pid)), None)


def guardians(llem: int) -> list[int]:
    """Of this run: children of it as long as it lives."""
    return [pid for pid in descendants(llem) if "llem.measure.guardian" in command_line(pid)]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
@best_of_rounds
def test_the_limit_is_back_whoever_is_killed(simulated_nvml: Path, tmp_path: Path, number: int) -> None:
    """Two seconds after the supervisor is gone at the latest, and when the run ends where only a worker or a sampler is."""
    who = ("supervisor", "worker", "sampler")[number % 3]
    llem = start(simulated_nvml, tmp_path)
    wait_until(lambda: limits_w(tmp_path) and pid_of(who, llem.pid))
    time.sleep(random.Random(number).uniform(0, 2.5))
    pid = pid_of(who, llem.pid)
    killed_ns = time.monotonic_ns()
    if pid is not None and llem.poll() is None:
        os.kill(pid, signal.SIGKILL)
    llem.communicate(timeout=LIMIT_S)
    ended_ns = time.monotonic_ns()
    wait_until(lambda: limits_w(tmp_path)[-1][1] == 700.0)
    from_ns = killed_ns if who == "supervisor" else ended_ns
    with delays():
        assert limits_w(tmp_path)[-1][0] - from_ns < (BACK_S + SLACK_S) * 1e9
    wait_until(lambda: not list((tmp_path / "store" / "settings").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("restored_by", ["doctor", "run"])
def test_what_is_killed_with_its_guardian_is_put_back(
    simulated_nvml: Path, tmp_path: Path, restored_by: str
) -> None:
    """The doctor tells it and `--restore` puts it back; so does the next run, which measures the device as it was."""
    llem = start(simulated_nvml, tmp_path)
    wait_until(lambda: limits_w(tmp_path) and guardians(llem.pid))
    for pid in [*guardians(llem.pid), llem.pid]:
        os.kill(pid, signal.SIGKILL)
    llem.communicate(timeout=LIMIT_S)
    assert [limit for _, limit in limits_w(tmp_path)] == [LIMIT_W]
    surroundings = {**environment(scenario(tmp_path), simulated_nvml), "LLEM_DIR": str(tmp_path / "store")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [LLEM, *arguments], env=surroundings, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        return done.stdout + done.stderr

    if restored_by == "doctor":
        told = json.loads(run("doctor", "--json"))
        (check,) = [check for check in told if check["name"] == "settings of gpu 0"]
        assert (check["status"], "llem doctor --restore" in check["fix"]) == ("warn", True)
        assert "put back: NVIDIA H100 80GB HBM3" in run("doctor", "--restore")
        assert "no run has left anything set" in run("doctor", "--restore")
    else:
        assert "put back what had been left" in run("measure", *ON_GPUS)
    assert [limit for _, limit in limits_w(tmp_path)] == [LIMIT_W, 700.0]
