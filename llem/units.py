"""Factors between the integer units of the log and the units of the tables, and durations in words."""

MS_PER_S = 1_000
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
MJ_PER_J = 1_000  # millijoules, as NVML counts energy
J_PER_KWH = 3_600_000
MW_PER_W = 1_000  # milliwatts, as NVML reports power
BYTES_PER_MB = 2**20  # as NVML, torch and the results of LLenergyMeasure count memory


def seconds(nanoseconds: int) -> float:
    """Nanoseconds as seconds."""
    return nanoseconds / NS_PER_S


def duration_in_words(duration_sec: float) -> str:
    """In the largest unit of which there are two."""
    for unit, unit_sec in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if duration_sec >= 2 * unit_sec:
            return f"{duration_sec / unit_sec:.0f} {unit}"
    return f"{duration_sec:.0f} s"
