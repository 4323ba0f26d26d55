"""A file of each format, and what its import is told."""

import gzip
from pathlib import Path

from llem.importers.asked import Asked

FORMATS = Path(__file__).parent / "formats"
FILES = {
    "vllm/openai-chat.json": "vllm-bench",
    "aiperf/profile_export.jsonl": "aiperf",
    "aiperf/profile_export_aiperf.json": "aiperf",
    "guidellm/benchmarks.json.gz": "guidellm",
    "sglang/results.jsonl": "sglang-bench",
    "codecarbon/emissions.csv": "codecarbon",
    "codecarbon/gpu.csv": "codecarbon",
    "zeus/energy.csv": "zeus",
    "nvidia_smi/power.csv": "nvidia-smi",
    "dcgmi/dmon.txt": "dcgmi",
    "mlperf/spl.txt": "mlperf-power",
    "optimum/benchmark_report.json": "optimum-benchmark",
    "llenergymeasure/process_0.json": "llenergymeasure",
    "llenergymeasure/aggregated.json": "llenergymeasure",
}
STARTED = Asked(timezone="UTC", start="2026-03-01T12:00:00")
ASKED = {
    "sglang-bench": STARTED,
    "optimum-benchmark": STARTED,
    "nvidia-smi": Asked(timezone="UTC", window="5,15"),
    "dcgmi": Asked(timezone="UTC", start="2026-03-01T12:00:00", interval_s=1.0),
}
UTC = Asked(timezone="UTC")


def asked(name: str) -> Asked:
    """What has to be said of a file."""
    return ASKED.get(FILES[name], UTC)


def content(name: str) -> bytes:
    """As the program wrote it."""
    written = (FORMATS / name).read_bytes()
    return gzip.decompress(written) if name.endswith(".gz") else written


def unpacked(name: str, folder: Path) -> Path:
    """A file with it."""
    path = folder / Path(name.removesuffix(".gz")).name
    path.write_bytes(content(name))
    return path
