"""Why a GPU is slower than it could be: bits of NVML's clocks-event reasons, with short names."""

SW_POWER, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER = 0x4, 0x8, 0x20, 0x40, 0x80
ANY_REASON = SW_POWER | HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | HW_POWER
SHORT_NAMES = {
    SW_POWER: "power cap",
    SW_THERMAL: "thermal slowdown",
    HW_THERMAL: "hardware thermal slowdown",
    HW_POWER: "power brake",
    HW_SLOWDOWN: "hardware slowdown",
}


def short_names(reasons: int) -> str:
    """The reasons to be slower that are set, as words; empty where none is."""
    return ", ".join(name for bit, name in SHORT_NAMES.items() if reasons & bit)
