"""Factors between the integer units of the log and the units of the tables, in which a sample stands in each, and durations in words."""

from collections.abc import Mapping

MS_PER_S = 1_000
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
MJ_PER_J = 1_000  # millijoules, as NVML counts energy
J_PER_KWH = 3_600_000
MW_PER_W = 1_000  # milliwatts, as NVML reports power
BYTES_PER_MB = 2**20  # as NVML, torch and the results of LLenergyMeasure count memory

# Column of the table -> the log's column, and how many of its units are one of the table's; None: the same.
SAMPLE_UNITS: Mapping[str, tuple[str, int | None]] = {
    "power_w": ("power_mw", MW_PER_W),
    "power_average_w": ("power_average_mw", MW_PER_W),
    "energy_j": ("energy_mj", MJ_PER_J),
    "temperature_c": ("temperature_c", None),
    "gpu_utilisation_pct": ("gpu_utilisation_pct", None),
    "memory_utilisation_pct": ("memory_utilisation_pct", None),
    "memory_used_bytes": ("memory_used_bytes", None),
    "sm_clock_mhz": ("sm_clock_mhz", None),
    "memory_clock_mhz": ("memory_clock_mhz", None),
    "throttle_reasons": ("throttle_reasons", None),
    "power_limit_w": ("power_limit_mw", MW_PER_W),
}


def seconds(nanoseconds: int) -> float:
    """Nanoseconds as seconds."""
    return nanoseconds / NS_PER_S


def duration_in_words(duration_sec: float) -> str:
    """In the largest unit of which there are two."""
    for unit, unit_sec in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if duration_sec >= 2 * unit_sec:
            return f"{duration_sec / unit_sec:.0f} {unit}"
    return f"{duration_sec:.0f} s"
