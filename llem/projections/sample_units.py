"""In which units a sample's values stand in the log and in its table."""

from collections.abc import Mapping

from llem.units import MJ_PER_J, MW_PER_W

# Column of the table -> the log's column, and how many of its units are one of the table's; None: the same.
UNITS: Mapping[str, tuple[str, int | None]] = {
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
