"""The AMD meter over a stand-in of amdsmi that keeps to its documentation: the right GPU, the right units, a reason for what is missing."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from llem.errors import MeterError
from tests.meters.conftest import AMD_LIBRARY, ManualClock

WATTS = (100, 200, 300)
UUIDS = [f"GPU-{index + 10:016x}" for index in range(3)]


@pytest.mark.parametrize(
    ("variables", "wanted", "expected"),
    [
        ({}, None, [100, 200, 300]),
        ({}, ["2", "0"], [300, 100]),
        ({}, [UUIDS[1]], [200]),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, ["1"], [100]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None, [200]),
        ({"ROCR_VISIBLE_DEVICES": f"{UUIDS[2]},0"}, ["0"], [300]),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "1"}, None, [300]),
        ({"SIMULATED_AMD_HIP": "2,1,0"}, ["0"], [300]),
    ],
)
def test_measures_the_gpu_that_hip_would_use(
    amd: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    wanted: list[str] | None,
    expected: list[int],
) -> None:
    """However the variables number the GPUs anew, and whatever order the library has, the power is that of the GPU that works."""
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    meter = amd.AmdMeter(amd.resolve_gpus(wanted))
    assert [reading.power_mw for reading in meter.read()] == [1000 * watts for watts in expected]
    meter.close()


def test_a_pinned_process_sees_what_was_pinned(amd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of `pin` stand for the same GPUs in the same order, whatever the caller's said."""
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,1")
    devices = amd.resolve_gpus(["1", "0"])
    for name, text in amd.pin(devices).items():
        monkeypatch.setenv(name, text)
    assert amd.resolve_gpus(None) == devices
    assert [device.uuid for device in devices] == [UUIDS[1], UUIDS[2]]


@pytest.mark.parametrize(
    ("variables", "wanted", "told"),
    [
        ({}, ["7"], "no such GPU: found 7, expected 0 (GPU-000000000000000a)"),
        ({"HIP_VISIBLE_DEVICES": "1"}, [UUIDS[0]], "HIP_VISIBLE_DEVICES hides all others"),
        ({"HIP_VISIBLE_DEVICES": "1,1"}, None, "HIP_VISIBLE_DEVICES names a GPU twice"),
        ({"ROCR_VISIBLE_DEVICES": ""}, None, "no GPU to measure: found ROCR_VISIBLE_DEVICES=''"),
        ({"GPU_DEVICE_ORDINAL": "0"}, None, "GPU_DEVICE_ORDINAL: found 0, expected ROCR_VISIBLE_DEVICES"),
        ({"SIMULATED_AMD_WATTS": ""}, None, "expected AMD's driver; try: sudo modprobe amdgpu"),
    ],
)
def test_says_which_gpus_there_are(
    amd: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    wanted: list[str] | None,
    told: str,
) -> None:
    """A GPU that is not there, hidden, or numbered in a way that the library does not see, is refused."""
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(MeterError) as caught:
        amd.resolve_gpus(wanted)
    assert told in str(caught.value)


def test_reads_in_our_units(amd: ModuleType, manual_clock: ManualClock) -> None:
    """Watts, units of 15.259 uJ and uW become mW and mJ."""
    meter = amd.AmdMeter(amd.resolve_gpus(["1"]), clock=manual_clock.clock)
    (opened,) = meter.read_edge()
    manual_clock.sleep_s(10.0)
    (closed,), (reading,), (metered,) = meter.read_edge(), meter.read(), meter.devices()
    measured_w = (closed.energy_mj - opened.energy_mj) / (closed.at_ns - opened.at_ns) * 1e6
    assert measured_w == pytest.approx(200.0, rel=1e-4)
    assert (reading.power_mw, reading.power_limit_mw, reading.temperature_c) == (200_000, 750_000, 41)
    assert (reading.gpu_utilisation_pct, reading.memory_utilisation_pct) == (90, 30)
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (2100, 1300)
    assert reading.memory_used_bytes == 3 * 2**30
    assert set(metered.missing) == {"power_average_mw", "throttle_reasons"}
    meter.close()


def test_an_average_is_called_one(amd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs before the MI300 know no present power."""
    monkeypatch.setenv("SIMULATED_AMD_KIND", "mi200")
    meter = amd.AmdMeter(amd.resolve_gpus(["0"]))
    (metered,), (reading,) = meter.devices(), meter.read()
    assert (metered.power_kind, reading.power_mw, reading.power_average_mw) == ("average", 100_000, 100_000)
    meter.close()


def test_without_a_counter_power_is_integrated(amd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that the device does not support costs its column, and says why."""
    monkeypatch.setenv("SIMULATED_AMD_BROKEN", "amdsmi_get_energy_count")
    meter = amd.AmdMeter(amd.resolve_gpus(["0"]))
    (metered,), (edge,) = meter.devices(), meter.read_edge()
    assert metered.energy_source == "integrated"
    assert edge.energy_mj is None and "NOT_SUPPORTED" in (edge.reason or "")
    meter.close()


def test_what_fails_later_is_told_once(amd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The column is None from there on."""
    meter = amd.AmdMeter(amd.resolve_gpus(["0"]))
    monkeypatch.setenv("SIMULATED_AMD_BROKEN", "amdsmi_get_gpu_activity")
    readings = [meter.read()[0] for _ in range(2)]
    assert [reading.gpu_utilisation_pct for reading in readings] == [None, None]
    assert sorted((code, text.partition(":")[0]) for _, code, text in meter.faults()) == [
        ("amd_error", "gpu_utilisation_pct"),
        ("amd_error", "memory_utilisation_pct"),
    ]
    meter.close()


def test_the_driver_says_what_the_gpus_are_set_to(amd: ModuleType) -> None:
    """Version, clocks and limits, for the environment of a result."""
    state = amd.driver_state()
    assert (state.version, state.cuda_version) == ("6.12.12", None)
    assert [(gpu.device.index, gpu.power_limit_w) for gpu in state.gpus] == [
        (0, 750.0),
        (1, 750.0),
        (2, 750.0),
    ]


CHOOSE = """
from llem.meters import choose_meter, vendor_of
from llem.plan import Plan
devices = vendor_of(Plan(), wraps_program=False).resolve_gpus(None)
print(choose_meter(Plan(), devices=devices).name, [device.uuid for device in devices])
"""


def test_auto_takes_the_gpus_of_amd_where_there_are_no_others() -> None:
    """On a host without NVIDIA's driver whose amdsmi sees GPUs."""
    host = {
        "PYTHONPATH": str(AMD_LIBRARY),
        "SIMULATED_AMD_WATTS": "100,200",
        # hides NVIDIA's GPUs, and AMD's are named anew
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "0,1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHOOSE], env=os.environ | host, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"amd {UUIDS[:2]}"


def test_a_library_that_does_not_load_is_told(tmp_path: os.PathLike[str]) -> None:
    """amdsmi looks for AMD's library when it is imported, and raises what it meets there."""
    broken = f"{tmp_path}/amdsmi.py"
    with open(broken, "w") as module:
        module.write("print('noise')\nraise KeyError('ROCM_PATH')\n")
    program = "from llem.meters import unavailable_meters; print(unavailable_meters()['amd'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("amd meter: found amdsmi, which cannot be loaded: KeyError 'ROCM_PATH'")
