"""The right GPU, whatever CUDA_VISIBLE_DEVICES says."""

import subprocess
import sys
from pathlib import Path

import pytest

from llem.errors import MeterError
from llem.meters.nvml import NvmlMeter, list_gpus, resolve_gpus
from tests.simulated_nvml.build import Simulation, environment, has_compiler
from tests.simulated_nvml.scenario import Gpu, Mig, Scenario, constant, uuid_of

UUIDS = [uuid_of(index) for index in range(4)]
MIGS = [uuid_of(index, prefix="MIG") for index in range(2)]


def _host(*, names: tuple[str, ...] = ("NVIDIA H100 80GB HBM3",) * 4, divided: int | None = None) -> Scenario:
    """Four GPUs that draw 100, 200, 300 and 400 W, so that each is known by its power."""
    migs = [Mig(uuid=MIGS[0], profile="1g.10gb"), Mig(uuid=MIGS[1], profile="3g.40gb")]
    gpus = [
        Gpu(
            uuid=UUIDS[index],
            name=name,
            pci=f"00000000:{index + 1:02X}:00.0",
            curve=constant(100.0 * (index + 1)),
            migs=migs if index == divided else None,
        )
        for index, name in enumerate(names)
    ]
    return Scenario(gpus=gpus)


@pytest.mark.parametrize(
    ("mask", "wanted", "expected"),
    [
        (None, None, [0, 1, 2, 3]),
        (None, ["2"], [2]),
        ("3", None, [3]),
        ("3", ["0"], [3]),
        ("3,1", None, [3, 1]),
        ("3,1", ["1"], [1]),
        ("2, 0", ["1", "0"], [0, 2]),
        (UUIDS[3], ["0"], [3]),
        (f"{UUIDS[2]},{UUIDS[0]}", ["0"], [2]),
        ("GPU-00000001", None, [1]),
        (None, [UUIDS[2]], [2]),
        (None, ["GPU-00000003"], [3]),
        ("3,1", [UUIDS[1]], [1]),
        ("1,9,2", None, [1]),
        ("2,-1,0", None, [2]),
        ("2,nonsense,0", None, [2]),
    ],
)
def test_finds_the_devices_that_cuda_would_use(
    nvml: Simulation,
    monkeypatch: pytest.MonkeyPatch,
    mask: str | None,
    wanted: list[str] | None,
    expected: list[int],
) -> None:
    """Indices, UUIDs, beginnings of UUIDs and any order lead to the same GPU as in CUDA."""
    nvml.install(_host())
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert [device.index for device in resolve_gpus(wanted)] == expected


@pytest.mark.parametrize("mask", ["3", UUIDS[3], "GPU-00000003", "3,0"])
def test_measures_the_gpu_that_was_meant(
    nvml: Simulation, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    """The power read is that of the fourth GPU, not of NVML's first."""
    nvml.install(_host())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    meter = NvmlMeter(resolve_gpus(["0"]), clock=nvml.clock)
    assert [reading.power_mw for reading in meter.read()] == [400_000]
    meter.close()


@pytest.mark.parametrize(
    ("mask", "wanted"), [(MIGS[1], None), (MIGS[1], ["0"]), (None, [MIGS[1]]), ("MIG-00000001", None)]
)
def test_finds_a_mig_instance(
    nvml: Simulation, monkeypatch: pytest.MonkeyPatch, mask: str | None, wanted: list[str] | None
) -> None:
    """A MIG instance is found by its UUID and knows its parent."""
    nvml.install(_host(divided=2))
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    (device,) = resolve_gpus(wanted)
    assert (device.kind, device.uuid, device.parent_uuid, device.mig_profile) == (
        "mig",
        MIGS[1],
        UUIDS[2],
        "3g.40gb",
    )


def test_labels_the_energy_of_a_mig_instance_as_its_parents(nvml: Simulation) -> None:
    """The whole GPU's power is read, under the instance's name, with what the instance cannot say."""
    nvml.install(_host(divided=2))
    meter = NvmlMeter(resolve_gpus([MIGS[0]]), clock=nvml.clock)
    (metered,), (reading,) = meter.devices(), meter.read()
    assert (metered.device.parent_uuid, reading.power_mw, metered.energy_source) == (
        UUIDS[2],
        300_000,
        "counter",
    )
    assert reading.memory_used_bytes == 9856 * 1024**2
    assert metered.missing["gpu_utilisation_pct"] == "not supported by this device"
    meter.close()


def test_a_divided_gpu_is_seen_through_its_instances(nvml: Simulation) -> None:
    """CUDA cannot run on a GPU in MIG mode as a whole, so it is not offered."""
    nvml.install(_host(divided=1))
    assert [device.uuid for device in list_gpus()] == [UUIDS[0], *MIGS, UUIDS[2], UUIDS[3]]


def test_an_index_is_nvidia_smis_on_a_host_with_instances(
    nvml: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances do not shift the numbers of the GPUs after them; a divided GPU must be named by instance."""
    nvml.install(_host(divided=1))
    assert [device.uuid for device in resolve_gpus(["3", "0"])] == [UUIDS[3], UUIDS[0]]
    with pytest.raises(MeterError, match=f"several such devices: found 1, expected {MIGS[0]} or {MIGS[1]}"):
        resolve_gpus(["1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{UUIDS[3]},{MIGS[1]}")
    assert [device.uuid for device in resolve_gpus(["1", "0"])] == [MIGS[1], UUIDS[3]]


def test_refuses_an_index_that_cuda_and_nvml_would_read_differently(
    nvml: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among different GPUs CUDA numbers the fastest first; guessing would measure the wrong one."""
    nvml.install(_host(names=("NVIDIA A40", "NVIDIA H100 80GB HBM3")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(MeterError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        resolve_gpus(None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [device.name for device in resolve_gpus(None)] == ["NVIDIA A40"]


@pytest.mark.parametrize(
    ("mask", "wanted", "message"),
    [
        (None, ["4"], "no such GPU: found 4, expected 0 (GPU-00000000"),
        (None, ["GPU-99"], "no such GPU: found GPU-99"),
        (None, ["GPU-"], "several such devices: found GPU-"),
        (None, [""], "no such GPU: found an empty name"),
        ("1", ["1"], "no such GPU: found 1, expected 0 (GPU-00000001"),
        ("1", [UUIDS[0]], "hides all others"),
        ("", None, "no GPU to measure: found CUDA_VISIBLE_DEVICES=''"),
        ("9", None, "no GPU to measure: found CUDA_VISIBLE_DEVICES='9'"),
        (None, [], "no GPU to measure: found a plan that uses none"),
        ("1,1", None, "names a GPU twice"),
        (None, ["0", "0"], f"a GPU is named twice: found 0,0, twice {UUIDS[0]}, expected each GPU once"),
        ("3,1", ["1", UUIDS[1]], f"twice {UUIDS[1]}"),
    ],
)
def test_says_which_gpus_there_are(
    nvml: Simulation,
    monkeypatch: pytest.MonkeyPatch,
    mask: str | None,
    wanted: list[str] | None,
    message: str,
) -> None:
    """A GPU that is not there or hidden is a one-line error with the choices."""
    nvml.install(_host())
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    with pytest.raises(MeterError) as caught:
        resolve_gpus(wanted)
    assert message in str(caught.value)


@pytest.mark.skipif(not has_compiler(), reason="no C compiler")
def test_another_process_sees_the_simulated_gpus(tmp_path: Path) -> None:
    """The loader finds the simulated library for a program that knows nothing of it."""
    program = "from llem.meters.nvml import resolve_gpus; print(resolve_gpus(['0'])[0].uuid)"
    env = environment(_host(), tmp_path) | {"CUDA_VISIBLE_DEVICES": "2,1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == UUIDS[2]
