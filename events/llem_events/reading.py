"""One reading of one device: the row that a meter returns and that samples_taken stores as columns."""

from typing import NamedTuple


class Reading(NamedTuple):
    """Integers in the meter's own resolution; None where the device has no such figure."""

    at_ns: int  # host's monotonic clock, taken just after the power was read
    energy_mj: int | None = None  # energy counter since the driver was loaded
    power_average_mw: int | None = None  # the driver's 1 s average, where it differs from power_mw
    power_mw: int | None = None
    temperature_c: int | None = None
    gpu_utilisation_pct: int | None = None
    memory_utilisation_pct: int | None = None
    memory_used_bytes: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None  # NVML's clocks-event-reasons bit mask
    power_limit_mw: int | None = None


SAMPLE_COLUMNS: tuple[str, ...] = Reading._fields
