"""The two clocks of a host, read together."""

import time
from pathlib import Path
from typing import NamedTuple


class ClockPair(NamedTuple):
    """Monotonic and wall-clock nanoseconds of the same moment."""

    monotonic_ns: int
    wall_ns: int


def read_clocks() -> ClockPair:
    """Both clocks; the wall clock is placed in the middle of two readings of the monotonic one."""
    before = time.monotonic_ns()
    wall_ns = time.time_ns()
    after = time.monotonic_ns()
    return ClockPair((before + after) // 2, wall_ns)


def boot_id() -> str:
    """The kernel's id of this boot: monotonic clocks compare only within it. Empty where the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
