"""What the doctor finds, and the commands it gives."""

import re
import socket
import time
from pathlib import Path

import msgspec
import pytest

from llem.measure.doctor import Check, checks, disk_space, disk_speed, has_hardware
from llem.measure.known_calibrations import keep
from llem.store import Store
from llem_events.events import Estimated, SensorCalibrated
from tests.measure.powercap import TickingPowercap
from tests.simulated_nvml.build import has_compiler, installed
from tests.simulated_nvml.scenario import (
    NO_PERMISSION,
    Fault,
    Gpu,
    Mig,
    Scenario,
    constant,
    hosts_gpus,
    uuid_of,
)

needs_compiler = pytest.mark.skipif(
    not has_compiler(), reason="no C compiler: the simulated NVML cannot be built"
)
HEALTHY = {"uuid": uuid_of(0), "curve": constant(600.0)}


def _checks(store: Path, scenario: Scenario) -> dict[str, Check]:
    with installed(scenario) as simulation:
        simulation.install(scenario, simulated_time=False)
        return {check.name: check for check in checks(store)}


def _gpu(**about: object) -> Scenario:
    return Scenario(gpus=[Gpu(**{**HEALTHY, **about})])  # type: ignore[arg-type]


@needs_compiler
def test_a_healthy_gpu_is_all_right(tmp_path: Path) -> None:
    """Driver, sensors, modes and clocks of a GPU that is ready to be measured."""
    found = _checks(tmp_path, _gpu())
    names = [
        "driver",
        *(
            f"gpu 0 {what}"
            for what in ("sensors", "persistence mode", "other processes", "clocks", "power limit")
        ),
    ]
    assert {name: found[name].status for name in names} == dict.fromkeys(names, "ok")
    assert found["driver"].found == "driver 570.86.15, CUDA up to 12.8, 1 GPU(s)"
    said = rf"NVIDIA H100 80GB HBM3; {uuid_of(0)}; energy counter \(ticks every \d+ ms\); power instant"
    assert re.fullmatch(said, found["gpu 0 sensors"].found)
    assert found["meters"].found.startswith("auto takes nvml")


@needs_compiler
@pytest.mark.parametrize(
    ("about", "check", "status", "fix"),
    [
        ({"persistence": False}, "persistence mode", "warn", "sudo nvidia-smi -i 0 -pm 1"),
        ({"processes": [4242]}, "other processes", "warn", "ps -fp 4242, then stop what is not needed"),
        ({"curve": constant(60.0)}, "clocks", "warn", "sudo nvidia-smi -i 0 -lgc 1584"),
        ({"limit_w": 500.0}, "power limit", "warn", "sudo nvidia-smi -i 0 -pl 700"),
        ({"counter_tick_ms": 0.0}, "sensors", "warn", None),
        ({"faults": [Fault(function="power", code=NO_PERMISSION)]}, "sensors", "warn", "check the permissions of /dev/nvidia*, or ask the administrator"),
    ],
)  # fmt: skip
def test_each_disturbance_has_its_fix(
    tmp_path: Path, about: dict[str, object], check: str, status: str, fix: str | None
) -> None:
    """What is wrong with a GPU is said with the command that mends it."""
    found = _checks(tmp_path, _gpu(**about))[f"gpu 0 {check}"]
    assert (found.status, found.fix) == (status, fix)
    assert found.why


@needs_compiler
def test_a_gpu_says_what_is_known_of_its_sensor(tmp_path: Path) -> None:
    """By a calibration under today's driver; else the command that makes one."""
    store = Store(tmp_path).create()
    calibrated = SensorCalibrated(
        host=socket.gethostname(),
        device_uuid=uuid_of(0),
        driver="570.86.15",
        sensor="power_mw",
        power_refresh_s=Estimated(value=0.1),
        seen_share=Estimated(value=0.25),
    )
    store.create_experiment("run")
    keep(store, [calibrated], experiment_id="run", calibrated_ns=time.time_ns() - 10**13)
    known = _checks(tmp_path, _gpu())["gpu 0 calibration"]
    said = "3 hours ago in run; power every 100 ms, sees 25 % of the time"
    assert (known.status, known.found) == ("ok", said)
    other_driver = msgspec.structs.replace(_gpu(), driver="580.1")
    found = _checks(tmp_path, other_driver)["gpu 0 calibration"].found
    assert found == "not calibrated under driver 580.1 in this store: llem calibrate"


@needs_compiler
def test_a_divided_gpu_is_listed_by_its_instances(tmp_path: Path) -> None:
    """An instance's UUID is what --gpu takes, and whose energy it would be is said."""
    found = _checks(tmp_path, _gpu(migs=[Mig(uuid=uuid_of(7, prefix="MIG"))]))["gpu 0 sensors"].found
    assert f"1g.10gb {uuid_of(7, prefix='MIG')}; the energy of an instance is its whole GPU's" in found


@needs_compiler
def test_a_hidden_gpu_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES leaves the second GPU only."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = _checks(tmp_path, hosts_gpus(2))
    assert (found["gpu 0 sensors"].status, found["gpu 0 sensors"].found) == (
        "skipped",
        "hidden by CUDA_VISIBLE_DEVICES",
    )
    assert found["gpu 1 sensors"].status == "ok"


@needs_compiler
def test_a_machine_without_a_gpu_is_no_failure(tmp_path: Path) -> None:
    """Measuring goes on with what there is; every check has a reason."""
    found = _checks(tmp_path, Scenario(gpus=[], driver_absent=True))
    assert found["driver"].status in {"skipped", "fail"}
    assert all(check.why and check.found for check in found.values())
    assert not [name for name in found if name.startswith("gpu")]


def test_finds_nvidia_hardware_without_its_driver(tmp_path: Path) -> None:
    """A display or compute device of NVIDIA's on the PCI bus; an audio device of theirs is none."""
    for slot, vendor, kind in (("a", "0x8086", "0x030000"), ("b", "0x10de", "0x040300")):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "vendor").write_text(f"{vendor}\n")
        (tmp_path / slot / "class").write_text(f"{kind}\n")
    assert not has_hardware("nvml", tmp_path)
    (tmp_path / "b" / "class").write_text("0x030200\n")
    assert has_hardware("nvml", tmp_path)


def test_looks_at_the_disk_of_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    """The nearest folder above is the one that will be written."""
    assert "GB free" in disk_space(tmp_path / "new" / "store", devices=1).found
    speed = disk_speed(tmp_path / "new" / "store")
    assert speed.status in {"ok", "warn"} and "is durable after" in speed.found
    assert list(tmp_path.iterdir()) == []


def test_a_day_of_too_many_devices_does_not_fit(tmp_path: Path) -> None:
    """Space is compared with what the log will take."""
    assert disk_space(tmp_path, devices=10**9).status == "fail"


@needs_compiler
def test_the_doctor_says_which_meters_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU and a readable package: both in one run."""
    with TickingPowercap(tmp_path / "powercap") as powercap:
        monkeypatch.setenv("LLEM_POWERCAP", str(powercap.root))
        found = _checks(tmp_path, _gpu())["meters"].found
    assert found.endswith("; both of GPUs and of the CPU: nvml,rapl")
