"""The environment snapshot: what a process ran on and under, scrubbed of secrets."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import Any

import msgspec

from llem.errors import LlemError
from llem.meters import driver_state
from llem.versions import __version__
from llem_events.events import Device
from llem_events.secrets import names_secret, scrub_value

_MARKS = {"/.dockerenv": "docker", "/run/.containerenv": "podman", "/.singularity.d": "apptainer"}
_VARIABLES = {
    "KUBERNETES_SERVICE_HOST": "kubernetes",
    "APPTAINER_CONTAINER": "apptainer",
    "SINGULARITY_CONTAINER": "singularity",
}
_CGROUPS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "containerd": "containerd",
    "libpod": "podman",
    "lxc": "lxc",
}
_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)
PACKAGES = (
    "accelerate", "amdsmi", "flash-attn", "llem", "msgspec", "numpy", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-ml-py",
    "safetensors", "tensorrt-llm", "tokenizers", "torch", "transformers", "triton", "vllm", "zeus", "zstandard",
)  # fmt: skip
# Variables that change what is measured. Families are listed by their beginning; where a family also holds secrets
# (SLURM_JWT, VLLM_API_KEY) its members are listed one by one.
VARIABLE_FAMILIES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "KMP_", "NCCL_", "CUBLAS_", "HIP_", "ROCR_")
VARIABLES = frozenset(
    {
        "GPU_DEVICE_ORDINAL", "HF_HUB_OFFLINE", "LLEM_LOG_LEVEL", "LLEM_POWERCAP", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "SLURM_CPUS_PER_TASK",
        "SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION", "SLURM_LOCALID",
        "SLURM_NODEID", "SLURM_NTASKS", "SLURM_PROCID", "TOKENIZERS_PARALLELISM", "TORCH_CUDA_ARCH_LIST", "TRANSFORMERS_OFFLINE",
        "VLLM_ATTENTION_BACKEND", "VLLM_USE_V1", "VLLM_WORKER_MULTIPROC_METHOD",
    }
)  # fmt: skip
CPU = Path("/sys/devices/system")


def snapshot(devices: Sequence[Device], *, meter: str | None) -> dict[str, Any]:
    """Hardware, driver, operating system, packages and variables; None where something cannot be known.

    `hardware.gpu`, `hardware.cuda` and `hardware.thermal` are of the first GPU of `devices`; `hardware.gpus` is all.
    `meter` is the one that reads them.
    """
    gpus, cuda = _gpus(devices, meter)
    first: dict[str, Any] = gpus[0] if gpus else {}
    found = {
        "hardware": {
            "gpu": _first_gpu(first),
            "gpus": gpus,
            "cuda": cuda,
            "thermal": {
                name: first.get(name)
                for name in ("temperature_c", "power_limit_w", "default_power_limit_w", "fan_speed_pct")
            },
            "cpu": cpu(),
            "container": container(),
            "collected_at": datetime.now(UTC).isoformat(),
        },
        "python_version": platform.python_version(),
        "packages": packages(),
        "variables": variables(os.environ),
        "tool_version": __version__,
        **_cuda_version(cuda),
    }
    scrubbed: dict[str, Any] = scrub_value(found)
    return scrubbed


def _gpus(devices: Sequence[Device], meter: str | None) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    wanted = [device.parent_uuid or device.uuid for device in devices if device.kind in {"gpu", "mig"}]
    if not wanted or meter is None:
        return [], None
    try:
        state = driver_state(meter)
    except LlemError as error:
        return [], {"version": None, "driver_version": None, "reason": str(error)}
    by_uuid = {gpu.device.uuid: msgspec.to_builtins(gpu) for gpu in state.gpus}
    gpus = [
        {**by_uuid[uuid].pop("device"), **by_uuid[uuid]} for uuid in dict.fromkeys(wanted) if uuid in by_uuid
    ]
    cudnn = next((version for name, version in packages().items() if name.startswith("nvidia-cudnn")), None)
    return gpus, {"version": state.cuda_version, "driver_version": state.version, "cudnn_version": cudnn}


def _first_gpu(gpu: Mapping[str, Any]) -> dict[str, Any] | None:
    if not gpu:
        return None
    memory_bytes = gpu.get("memory_bytes")
    return {
        "name": gpu["name"],
        "vram_total_mb": None if memory_bytes is None else memory_bytes / 1024**2,
        "compute_capability": gpu["compute_capability"],
        "pcie_gen": gpu["pcie_generation"],
        "mig_enabled": gpu["mig_enabled"],
    }


def _cuda_version(cuda: Mapping[str, Any] | None) -> dict[str, str | None]:
    """The CUDA that torch was built for, else the newest that the driver runs, and which of the two it is."""
    if built_for := torch_cuda_version():
        return {"cuda_version": built_for, "cuda_version_source": "torch"}
    newest = (cuda or {}).get("version")
    return {"cuda_version": newest, "cuda_version_source": newest and "driver"}


def cpu() -> dict[str, Any]:
    """Model, governor, cores and memory nodes of this machine."""
    return {
        "governor": _line(CPU / "cpu/cpu0/cpufreq/scaling_governor"),
        "model": _cpu_model() or platform.processor() or None,
        "platform": platform.platform(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "numa_nodes": len(list((CPU / "node").glob("node[0-9]*"))) or None,
    }


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def packages() -> dict[str, str]:
    """Versions of the packages that matter to a figure, of those that are installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The allowed variables that are set; never the whole environment."""
    return {
        name: text
        for name, text in sorted(environ.items())
        if (name in VARIABLES or name.startswith(VARIABLE_FAMILIES)) and not names_secret(name)
    }


def container(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """`detected`, and the `runtime` where it can be told."""
    marks = (runtime for path, runtime in _MARKS.items() if (root / path.lstrip("/")).exists())
    told = (runtime for name, runtime in _VARIABLES.items() if name in environ)
    runtime = next(told, None) or next(marks, None) or _from_cgroup(root / "proc/1/cgroup")
    return {"detected": runtime is not None, "runtime": runtime}


def _from_cgroup(path: Path) -> str | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    return next((runtime for word, runtime in _CGROUPS.items() if word in text), None)


def torch_version() -> str | None:
    """Installed version, None without torch."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def torch_cuda_version() -> str | None:
    """CUDA version of the build; None for a CPU build or without torch."""
    found = util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    return cuda_version_in(Path(found.submodule_search_locations[0]) / "version.py")


def cuda_version_in(path: Path) -> str | None:
    """The `cuda` that a torch/version.py assigns."""
    try:
        match = _CUDA.search(path.read_text())
    except OSError:
        return None
    return match[1] if match else None
