"""Which meter is taken, and what choosing one loads."""

import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

from llem.errors import MeterError, MissingExtraError
from llem.meters import (
    choose_meter,
    create_meter,
    create_meters,
    require_meter,
    unavailable_meters,
    vendor_of,
)
from llem.meters.nvml import resolve_gpus
from llem.meters.sensors import Sensor, SensorMeter
from llem.plan import EnginePlan, MeterPlan, Plan
from llem.registry import METERS, MeterKind
from llem_events.events import Device
from tests.meters.conftest import FakePowercap
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import Scenario, hosts_gpus


def test_a_named_meter_is_taken() -> None:
    """The plan's word is followed without asking what else there is."""
    assert choose_meter(Plan(meter=MeterPlan(name="simulated")), devices=[]).name == "simulated"


def test_auto_takes_the_gpu(nvml: Simulation) -> None:
    """A GPU that can be read is measured."""
    nvml.install(hosts_gpus(1))
    assert choose_meter(Plan(), devices=resolve_gpus(None)).name == "nvml"


def test_auto_says_why_it_did_not_take_the_gpu(nvml: Simulation) -> None:
    """When it went away after it was found, the reasons of all better meters are kept."""
    nvml.install(hosts_gpus(1))
    devices = resolve_gpus(None)
    nvml.install(Scenario(gpus=[], driver_absent=True))
    choice = choose_meter(Plan(), devices=devices)
    assert "the NVIDIA driver is not loaded" in choice.rejected["nvml"]
    assert choice.name in {"rapl", "estimate"}


def test_auto_leaves_the_gpu_out_when_the_model_is_on_the_cpu(nvml: Simulation) -> None:
    """An idle GPU's energy is not the model's."""
    nvml.install(hosts_gpus(1))
    assert choose_meter(Plan(), devices=[]).rejected["nvml"] == "no GPU is used"


def test_opens_the_chosen_meter() -> None:
    """create_meter gives the meter by its name, with a device per entry."""
    plan = Plan(meter=MeterPlan(name="simulated"), engine=EnginePlan(name="simulated"))
    devices = vendor_of(plan, wraps_program=False).resolve_gpus(["0", "1"])
    meter = create_meter(plan, devices=devices, pid=None)
    assert (meter.NAME, [one.device.uuid for one in meter.devices()]) == ("simulated", ["SIM-0", "SIM-1"])


def test_opens_every_meter_of_the_plan_the_first_first(
    powercap: FakePowercap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs are those of the meter that has some, wherever it stands."""
    monkeypatch.setenv("LLEM_POWERCAP", str(powercap.root))
    plan = Plan(meter=MeterPlan(name="rapl", also=["simulated"]), engine=EnginePlan(name="simulated"))
    devices = vendor_of(plan, wraps_program=False).resolve_gpus(["0", "1"])
    require_meter(plan, devices=devices)
    meters = create_meters(plan, devices=devices, pid=None)
    assert [(meter.NAME, len(meter.devices())) for meter in meters] == [("rapl", 2), ("simulated", 2)]


def test_one_that_cannot_be_opened_closes_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them or none: a driver that stays open would keep the GPU awake."""
    closed: list[str] = []

    class FirstMeter(SensorMeter):
        NAME = "first"

        def close(self) -> None:
            closed.append(self.NAME)

    sensor = Sensor(Device(host="h", uuid="u", index=0, name="n", kind="gpu"), library="none", no_answer=())
    module = ModuleType("first_meter")
    module.open_meter = lambda plan, *, devices, pid: FirstMeter([sensor])  # type: ignore[attr-defined] # made up here
    monkeypatch.setitem(sys.modules, "first_meter", module)
    monkeypatch.setitem(METERS, "first", MeterKind("first_meter"))
    monkeypatch.setenv("LLEM_POWERCAP", "/nowhere")
    plan = Plan(meter=MeterPlan(name="first", also=["rapl"]))
    with pytest.raises(MeterError, match="rapl meter: found no intel-rapl package"):
        create_meters(plan, devices=[], pid=None)
    assert closed == ["first"]


def test_a_meter_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that nothing watches would look like one that was measured."""

    class BlindMeter(SensorMeter):
        NAME = "blind"

    module = ModuleType("blind_meter")
    module.open_meter = lambda plan, *, devices, pid: BlindMeter([])  # type: ignore[attr-defined] # made up here
    monkeypatch.setitem(sys.modules, "blind_meter", module)
    monkeypatch.setitem(METERS, "blind", MeterKind("blind_meter"))
    with pytest.raises(MeterError, match="meter blind: found no device that it reads"):
        create_meter(Plan(meter=MeterPlan(name="blind")), devices=[], pid=None)


def test_every_meter_says_whether_it_can_be_used() -> None:
    """Each name of the plan has a reason or None; the simulated one always works."""
    reasons = unavailable_meters()
    assert list(reasons) == list(METERS)
    assert reasons["simulated"] is None


@pytest.mark.skipif(find_spec("zeus") is not None, reason="the zeus extra is installed")
def test_a_missing_extra_names_its_install_command() -> None:
    """The zeus meter without its package."""
    with pytest.raises(MissingExtraError, match=r"pip install 'llem\[zeus\]'"):
        create_meter(Plan(meter=MeterPlan(name="zeus")), devices=[], pid=None)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import llem.meters", ["pynvml", "zeus", "torch", "duckdb"]),
        ("from llem.meters import create_meter; from llem.plan import Plan, MeterPlan\n"
         "create_meter(Plan(meter=MeterPlan(name='simulated')), devices=[], pid=None)", ["pynvml", "zeus", "torch", "duckdb"]),
    ],
)  # fmt: skip
def test_loads_only_what_is_used(code: str, absent: list[str]) -> None:
    """A fresh interpreter has no GPU library in it before one is asked for."""
    program = f"{code}\nimport sys; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
