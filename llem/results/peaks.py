"""Peak FLOP/s of devices, and what share of it a measurement used."""

import re
from collections.abc import Sequence

import msgspec

_TERA = 10**12


class Peak(msgspec.Struct, frozen=True):
    """Dense peak of one device in TFLOP/s, by the weights' type; None where the device has no such arithmetic.

    16-bit figures are of the tensor cores with 32-bit accumulation and without sparsity; float32 is that of the
    ordinary cores, which torch uses unless TF32 is asked for.
    """

    nvml_name: str  # pattern for the whole name
    float16: float | None
    bfloat16: float | None
    float32: float
    source: str

    def flops_per_s(self, dtype: str) -> float | None:
        tera = {"float16": self.float16, "bfloat16": self.bfloat16, "float32": self.float32}.get(dtype)
        return None if tera is None else tera * _TERA


# The whole name has to match: a MIG instance, a laptop part or a "Ti" is another device and stays unknown.
PEAKS = (
    Peak(r"NVIDIA H100( 80GB HBM3| SXM5.*)", 989.4, 989.4, 66.9, "NVIDIA H100 data sheet, SXM"),
    Peak(r"NVIDIA H100 PCIe", 756.0, 756.0, 51.0, "NVIDIA H100 data sheet, PCIe"),
    Peak(r"NVIDIA H100 NVL", 835.5, 835.5, 60.0, "NVIDIA H100 data sheet, NVL"),
    Peak(r"NVIDIA H200( SXM.*)?", 989.4, 989.4, 66.9, "NVIDIA H200 data sheet, SXM"),
    Peak(r"NVIDIA H200 NVL", 835.5, 835.5, 60.0, "NVIDIA H200 data sheet, NVL"),
    Peak(r"(NVIDIA )?A100[- ].*", 312.0, 312.0, 19.5, "NVIDIA A100 data sheet"),
    Peak(r"NVIDIA L40S", 362.05, 362.05, 91.6, "NVIDIA L40S data sheet"),
    Peak(r"NVIDIA L4", 121.0, 121.0, 30.3, "NVIDIA L4 data sheet (halved from the figure with sparsity)"),
    Peak(r"(NVIDIA |Tesla )V100-SXM2.*", 125.0, None, 15.7, "NVIDIA V100 data sheet, SXM2"),
    Peak(r"(NVIDIA |Tesla )V100-PCIE.*", 112.0, None, 14.0, "NVIDIA V100 data sheet, PCIe"),
    Peak(r"(NVIDIA |Tesla )T4", 65.0, None, 8.1, "NVIDIA T4 data sheet"),
    Peak(r"NVIDIA GeForce RTX 4090", 165.2, 165.2, 82.6, "NVIDIA Ada architecture white paper, appendix A"),
    Peak(r"NVIDIA GeForce RTX 3090", 71.0, 71.0, 35.6, "NVIDIA GA102 architecture white paper, appendix A"),
)


def peak_of(device_name: str) -> Peak | None:
    """The entry for a device by its NVML name; None where the table has none."""
    if "MIG" in device_name:
        return None
    return next((peak for peak in PEAKS if re.fullmatch(peak.nvml_name, device_name)), None)


def model_flops_utilisation(
    flops: float | None, *, duration_s: float | None, device_names: Sequence[str], dtype: str | None
) -> float | None:
    """FLOPs done over what all devices could have done at their peak (MFU, Chowdhery et al. 2022, appendix B).

    None where the FLOPs, the duration, the type of the weights or the peak of any device is unknown.
    """
    peaks = [peak for name in device_names if (peak := _peak_flops_per_s(name, dtype)) is not None]
    if not peaks or len(peaks) < len(device_names) or flops is None or not duration_s:
        return None
    return flops / (duration_s * sum(peaks))


def _peak_flops_per_s(device_name: str, dtype: str | None) -> float | None:
    peak = peak_of(device_name)
    return None if peak is None or dtype is None else peak.flops_per_s(dtype)
