"""What can be chosen by name: meters, engines, servers and formats of files, a line each with its module and what it needs. Nothing is loaded here."""

from collections.abc import Sequence
from typing import Literal, NamedTuple


class MeterKind(NamedTuple):
    """A meter: `module` opens it, and lists and pins its GPUs where it has some."""

    module: str
    # pip install 'llem[extra]' brings its package; None: llem alone is enough.
    extra: str | None = None
    # The order in which "auto" tries it; None: it is taken only by its name.
    rank: int | None = None
    gpus: Literal["real", "made up"] | None = None
    # It reads nothing else.
    needs_gpus: bool = False
    # The module that sets power limits and clocks of its GPUs; None: llem does not set them.
    settings: str | None = None
    # How the bus names the maker of the GPUs, so that hardware is known without its driver.
    pci_vendor: str | None = None


class EngineKind(NamedTuple):
    """An engine: `module` creates it, `checks` looks at the plan before anything is started and loads no model runtime."""

    module: str
    checks: str
    extra: str | None = None
    # What the extra brings; the lack of any other package is a defect.
    packages: Sequence[str] = ()
    uses_gpus: bool = True


class ServerKind(NamedTuple):
    """A serving engine: `module` says how it is started, and looks at the plan beforehand."""

    module: str
    uses_gpus: bool = True


METERS = {
    "nvml": MeterKind(
        "llem.meters.nvml",
        rank=10,
        gpus="real",
        needs_gpus=True,
        settings="llem.meters.nvml_settings",
        pci_vendor="0x10de",
    ),
    "amd": MeterKind(
        "llem.meters.amd", extra="amd", rank=20, gpus="real", needs_gpus=True, pci_vendor="0x1002"
    ),
    "rapl": MeterKind("llem.meters.rapl", rank=30),
    "zeus": MeterKind("llem.meters.zeus", extra="zeus", gpus="real"),
    "estimate": MeterKind("llem.meters.estimate", rank=100),
    "simulated": MeterKind(
        "llem.meters.simulated", gpus="made up", settings="llem.meters.simulated_settings"
    ),
}
ENGINES = {
    "transformers": EngineKind(
        "llem.engines.hf",
        checks="llem.engines.hf_check",
        extra="torch",
        packages=("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub"),
    ),
    "simulated": EngineKind("llem.engines.simulated", checks="llem.engines.simulated", uses_gpus=False),
}
SERVERS = {
    "vllm": ServerKind("llem.servers.vllm"),
    "sglang": ServerKind("llem.servers.sglang"),
    "llamacpp": ServerKind("llem.servers.llamacpp"),
    "transformers": ServerKind("llem.servers.transformers"),
    "command": ServerKind("llem.servers.command"),
    "url": ServerKind("llem.servers.url"),
    "simulated": ServerKind("llem.servers.simulated", uses_gpus=False),
}

# Formats of files to import, in the order in which a file is looked at, with the module that reads each.
IMPORTERS = {
    "llenergymeasure": "llem.importers.llenergymeasure",
    "nvidia-smi": "llem.importers.nvidia_smi",
    "vllm-bench": "llem.importers.vllm_bench",
    "aiperf": "llem.importers.aiperf",
    "guidellm": "llem.importers.guidellm",
    "sglang-bench": "llem.importers.sglang_bench",
    "codecarbon": "llem.importers.codecarbon",
    "zeus": "llem.importers.zeus",
    "dcgmi": "llem.importers.dcgmi",
    "mlperf-power": "llem.importers.mlperf_power",
    "optimum-benchmark": "llem.importers.optimum_benchmark",
}


def install_hint(extra: str) -> str:
    """The command that brings an extra."""
    return f"pip install 'llem[{extra}]'"


def ranked_meters() -> list[str]:
    """What "auto" tries, the best first."""
    ranks = {name: kind.rank for name, kind in METERS.items() if kind.rank is not None}
    return sorted(ranks, key=ranks.__getitem__)


def one_of(*names: str) -> str:
    """The names as a choice in a sentence."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
