"""Where a run stands below the roof that arithmetic and memory of its devices make (Williams et al. 2009, doi 10.1145/1498765.1498785).

A decoding step reads every weight once, however many requests are in its batch; a prompt does so once too. Those reads
are what is counted: the cache of keys and values and all else come on top, so the true intensity lies at most here.
"""

import re
from collections.abc import Sequence

import msgspec

_GIGA = 10**9
BYTES_OF = {"float16": 2, "bfloat16": 2, "float32": 4}


class Bandwidth(msgspec.Struct, frozen=True):
    """What one device's memory delivers at most, in GB/s."""

    nvml_name: str  # pattern for the whole name
    gb_per_s: float
    source: str


BANDWIDTHS = (
    Bandwidth(r"NVIDIA H100( 80GB HBM3| SXM5.*)", 3350.0, "NVIDIA H100 data sheet, SXM"),
    Bandwidth(r"NVIDIA H100 PCIe", 2000.0, "NVIDIA H100 data sheet, PCIe"),
    Bandwidth(r"NVIDIA H100 NVL", 3900.0, "NVIDIA H100 data sheet, NVL"),
    Bandwidth(r"NVIDIA H200.*", 4800.0, "NVIDIA H200 data sheet"),
    Bandwidth(r"(NVIDIA )?A100-(SXM4|PCIE)-40GB", 1555.0, "NVIDIA A100 data sheet, 40 GB"),
    Bandwidth(r"(NVIDIA )?A100-SXM4-80GB", 2039.0, "NVIDIA A100 data sheet, 80 GB SXM"),
    Bandwidth(r"(NVIDIA )?A100 80GB PCIe", 1935.0, "NVIDIA A100 data sheet, 80 GB PCIe"),
    Bandwidth(r"NVIDIA L40S", 864.0, "NVIDIA L40S data sheet"),
    Bandwidth(r"NVIDIA L4", 300.0, "NVIDIA L4 data sheet"),
    Bandwidth(r"NVIDIA GeForce RTX 4090", 1008.0, "NVIDIA Ada architecture white paper, appendix A"),
    Bandwidth(r"NVIDIA GeForce RTX 3090", 936.0, "NVIDIA GA102 architecture white paper, appendix A"),
)


class RooflinePoint(msgspec.Struct, frozen=True):
    """A run below its roof; all its devices together."""

    flops_per_byte: float  # of weights that were read
    flops_per_s: float
    peak_flops_per_s: float
    bandwidth_bytes_per_s: float


class WeightReads(msgspec.Struct, frozen=True):
    """How often one process read the weights of its model; None for what is not known."""

    parameters: int | None  # that multiply a token
    dtype: str | None
    passes: int | None  # steps over all batches


def roofline_point(
    reads: Sequence[WeightReads],
    *,
    flops: float | None,
    flops_per_s: float | None,
    utilisation: float | None,
    device_names: Sequence[str],
) -> RooflinePoint | None:
    """None where FLOPs, peaks, bandwidths, or how often weights were read are unknown."""
    read_bytes = [_read_bytes(each) for each in reads]
    rates = [_bandwidth_bytes_per_s(name) for name in device_names]
    known_bytes = sum(each for each in read_bytes if each is not None)
    known_rate = sum(rate for rate in rates if rate is not None)
    if None in read_bytes or None in rates or not (known_bytes and known_rate):
        return None
    if not (flops and flops_per_s and utilisation):
        return None
    return RooflinePoint(flops / known_bytes, flops_per_s, flops_per_s / utilisation, known_rate)


def _read_bytes(reads: WeightReads) -> int | None:
    size = BYTES_OF.get(reads.dtype or "")
    if reads.parameters is None or size is None or reads.passes is None:
        return None
    return reads.parameters * size * reads.passes


def _bandwidth_bytes_per_s(device_name: str) -> float | None:
    if "MIG" in device_name:
        return None
    found = (each.gb_per_s for each in BANDWIDTHS if re.fullmatch(each.nvml_name, device_name))
    rate = next(found, None)
    return None if rate is None else rate * _GIGA
