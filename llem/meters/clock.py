"""The clock that a meter reads and sleeps by, so that simulated time can take its place."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """Nanoseconds of the host's monotonic clock, and a way to wait."""

    now_ns: Callable[[], int]
    sleep_s: Callable[[float], None]


SYSTEM_CLOCK = Clock(time.monotonic_ns, time.sleep)
