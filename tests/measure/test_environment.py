"""The environment snapshot, and that nothing secret is in it."""

from pathlib import Path

import msgspec
import pytest

from llem.measure.environment import container, cuda_version_in, snapshot, variables
from llem.meters.nvml import resolve_gpus
from llem.results.environment import EnvironmentSnapshot
from llem_events.events import Device
from tests.simulated_nvml.build import has_compiler, installed
from tests.simulated_nvml.scenario import Gpu, Mig, Scenario, uuid_of

needs_compiler = pytest.mark.skipif(
    not has_compiler(), reason="no C compiler: the simulated NVML cannot be built"
)
CANARY = "hf_" + "CaNaRy0123456789CaNaRy"


def test_becomes_an_environment_snapshot() -> None:
    """The dict has the shape of the results layer's Struct."""
    environment = msgspec.convert(snapshot([], meter=None), EnvironmentSnapshot)
    assert environment.hardware.gpu is None
    assert environment.hardware.cpu.platform
    assert environment.packages["msgspec"] == msgspec.__version__
    assert environment.hardware.collected_at is not None


def test_can_be_written_to_the_log() -> None:
    """Only builtin types: msgpack takes it and gives it back."""
    found = snapshot([], meter=None)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found)) == found


@needs_compiler
def test_describes_every_gpu_it_is_given() -> None:
    """UUID, PCI id, clocks, limits and modes of each device; the first one in the words of the results."""
    slower = Gpu(uuid=uuid_of(1), limit_w=400.0, persistence=False, pci="00000000:AF:00.0")
    with installed(Scenario(gpus=[Gpu(uuid=uuid_of(0)), slower])):
        found = snapshot(resolve_gpus(["1"]), meter="nvml")
    environment = msgspec.convert(found, EnvironmentSnapshot)
    assert (
        environment.hardware.thermal.power_limit_w,
        environment.hardware.thermal.default_power_limit_w,
    ) == (400.0, 700.0)
    assert environment.summary_line.startswith("H100 80GB HBM3 80GB | ")
    (gpu,) = found["hardware"]["gpus"]
    assert {name: gpu[name] for name in ("uuid", "pci_id", "persistence_enabled", "ecc_enabled", "mig_enabled", "compute_mode")} == {
        "uuid": uuid_of(1), "pci_id": "00000000:AF:00.0", "persistence_enabled": False, "ecc_enabled": True,
        "mig_enabled": False, "compute_mode": "default",
    }  # fmt: skip
    assert gpu["sm_clock_max_mhz"] == 1980


@needs_compiler
def test_describes_the_parent_of_a_mig_instance() -> None:
    """An instance has its parent's settings."""
    with installed(Scenario(gpus=[Gpu(uuid=uuid_of(0), migs=[Mig(uuid=uuid_of(0, prefix="MIG"))])])):
        found = snapshot(resolve_gpus(None), meter="nvml")
    assert [(gpu["uuid"], gpu["mig_enabled"]) for gpu in found["hardware"]["gpus"]] == [(uuid_of(0), True)]


@needs_compiler
def test_a_driver_that_has_gone_leaves_a_reason() -> None:
    """The snapshot never stops a measurement."""
    device = Device(host="h", uuid=uuid_of(0), index=0, name="H100", kind="gpu")
    with installed(Scenario(gpus=[], driver_absent=True)):
        found = snapshot([device], meter="nvml")
    assert found["hardware"]["gpu"] is None
    assert "not loaded" in found["hardware"]["cuda"]["reason"]


def test_records_an_allow_list_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes a measurement is kept by name; everything else, secrets first, is not."""
    kept = {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "4", "SLURM_JOB_ID": "12", "HF_HUB_OFFLINE": "1"}
    left = {
        "HF_TOKEN": CANARY,
        "VLLM_API_KEY": CANARY,
        "SLURM_JWT": CANARY,
        "NVIDIA_API_KEY": CANARY,
        "HOME": "/root",
    }
    assert variables({**kept, **left}) == kept


def test_planted_secrets_are_nowhere_in_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canaries under secret and under harmless names do not come out."""
    for name in (
        "HF_TOKEN",
        "NVIDIA_API_KEY",
        "CUDA_CACHE_PATH",
        "OMP_PROC_BIND",
        "SLURM_JOB_PARTITION",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("NCCL_NET", "https://user:correcthorse@example.org")
    text = msgspec.json.encode(snapshot([], meter=None)).decode()
    assert CANARY not in text and "correcthorse" not in text
    assert "CUDA_CACHE_PATH" in text


@pytest.mark.parametrize(
    ("mark", "runtime"),
    [(".dockerenv", "docker"), ("run/.containerenv", "podman"), (".singularity.d", "apptainer")],
)
def test_knows_containers_by_their_marks(tmp_path: Path, mark: str, runtime: str) -> None:
    """Each runtime leaves a file of its own."""
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    assert container(tmp_path, environ={}) == {"detected": True, "runtime": runtime}


def test_knows_that_it_is_in_no_container(tmp_path: Path) -> None:
    """An ordinary host has none of the marks."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("0::/init.scope\n")
    assert container(tmp_path, environ={}) == {"detected": False, "runtime": None}


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("cuda: Optional[str] = '12.8'", "12.8"),
        ("cuda = '11.8'", "11.8"),
        ("cuda: Optional[str] = None", None),
        ("cuda = None", None),
    ],
)
def test_reads_what_torch_was_built_for(tmp_path: Path, line: str, version: str | None) -> None:
    """From torch's version file, for importing torch takes seconds."""
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\nhip: Optional[str] = '6.2'\n")
    assert cuda_version_in(tmp_path / "version.py") == version
