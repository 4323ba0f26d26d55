"""A scenario of simulated GPUs: what they are, the power they draw, and what goes wrong when."""

import csv
import math
import random
from pathlib import Path

import msgspec

Row = tuple[float, float]  # seconds, watts
NEVER = math.inf
TRACE = Path(__file__).parents[2] / "benchmarks" / "data" / "h100_qwen3-8b_serving_4hz.csv"

NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST, UNKNOWN = 3, 4, 15, 999
DRIVER_NOT_LOADED, VERSION_MISMATCH = 9, 18


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the scenario."""


class Fault(Part, kw_only=True):
    """A function ("power", "energy", "fields", "temperature", "all", ...) that fails or is slow for a while."""

    function: str
    code: int = 0  # NVML's error code; 0 for a call that is only slow
    from_s: float = 0.0
    until_s: float = NEVER
    slow_ms: float = 0.0


class Throttle(Part, kw_only=True):
    """An episode with lowered clocks and a reason."""

    from_s: float
    until_s: float
    reasons: int = 0x40  # hardware thermal slowdown
    sm_mhz: int = 1200


class Mig(Part, kw_only=True):
    """One MIG instance."""

    uuid: str
    profile: str = "1g.10gb"
    memory_mib: int = 9856


class Gpu(Part, kw_only=True):
    """One GPU; the defaults are an H100 with a 100 ms energy counter."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    pci: str = "00000000:18:00.0"
    capability: str = "9.0"
    memory_mib: tuple[int, int] = (81559, 74153)  # total, used
    limit_w: float = 700.0
    default_limit_w: float = 700.0
    least_limit_w: float = 200.0
    temperature_c: tuple[float, float] = (30.0, 80.0)  # at 0 W, at the limit
    clocks_mhz: tuple[int, int, int] = (345, 1980, 2619)  # SM least and most, memory
    persistence: bool = True
    ecc: bool = True
    fields: frozenset[str] = frozenset({"instant", "average", "energy"})  # field values the driver knows
    counter_tick_ms: float = 100.0  # 0: no energy counter
    counter_start_mj: int = 5_000_000_000
    counter_scale: float = 1.0  # it counts so many times the truth
    average_s: float = 1.0
    refresh: tuple[float, float] | None = (
        None  # the average is renewed every so many seconds, from a second on; else at every reading
    )
    seen: tuple[float, float] | None = None  # the sensor sees this share of each period of so many seconds
    delay_s: float = 0.0  # of both powers behind the load
    low_pass_s: float | None = None  # time constant: the average is no plain mean but follows exponentially
    # Watts when idle and when fully loaded, instead of the curve: a program loads it by `sim_set_load` of the library.
    load_w: tuple[float, float] | None = None
    curve: tuple[Row, ...] = ((0.0, 300.0), (1.0, 300.0))
    linear: bool = True  # between rows; else each row holds until the next
    migs: list[Mig] | None = None  # None: MIG is off
    throttles: list[Throttle] = []
    faults: list[Fault] = []
    counter_reset_s: float | None = None
    counter_stuck_s: float | None = None
    counter_jump: tuple[float, int] | None = None  # at second, millijoules
    power_spike: tuple[float, float, float] | None = None  # from, until, watts above the truth
    processes: list[int] = []


class Scenario(Part, kw_only=True):
    """A host with GPUs. Seconds count from the moment that the scenario is installed."""

    gpus: list[Gpu]
    driver: str = "570.86.15"
    cuda: int = 12080
    driver_absent: bool = False
    driver_mismatch: bool = False  # library and kernel module of different versions
    restart: tuple[float, float] | None = None  # the driver goes away at a second, for so many
    call_us: float = 20.0  # what a call costs in simulated time
    settings: str | None = (
        None  # the file of what is set, which all processes share; None: each knows its own
    )

    def lines(self, *, epoch_ns: int) -> str:
        """The scenario in the library's own words."""
        head = [
            f"driver {self.driver} {self.cuda}",
            f"epoch_ns {epoch_ns}",
            f"call_ns {round(self.call_us * 1000)}",
        ]
        head += [f"driver_error {DRIVER_NOT_LOADED}"] if self.driver_absent else []
        head += [f"driver_error {VERSION_MISMATCH}"] if self.driver_mismatch else []
        head += [f"restart {self.restart[0]} {self.restart[1]}"] if self.restart else []
        head += [f"settings {self.settings}"] if self.settings else []
        return "\n".join([*head, *(line for gpu in self.gpus for line in _gpu_lines(gpu))]) + "\n"


def _gpu_lines(gpu: Gpu) -> list[str]:
    lines = [
        "gpu",
        f"name {gpu.name}",
        f"uuid {gpu.uuid}",
        f"pci {gpu.pci}",
        f"capability {gpu.capability}",
        f"memory_mib {_words(gpu.memory_mib)}",
        f"limit_w {gpu.limit_w} {gpu.default_limit_w}",
        f"least_limit_w {gpu.least_limit_w}",
        f"temperature_c {_words(gpu.temperature_c)}",
        f"clocks_mhz {_words(gpu.clocks_mhz)}",
        f"modes {int(gpu.persistence)} {int(gpu.ecc)} 0",
        f"fields {_words([int(word in gpu.fields) for word in ('instant', 'average', 'energy')])}",
        f"counter {gpu.counter_tick_ms / 1000} {gpu.counter_start_mj}",
        f"counter_scale {gpu.counter_scale}",
        f"average_s {gpu.average_s}",
        f"delay_s {gpu.delay_s}",
        f"linear {int(gpu.linear)}",
        *(f"row {second} {watts}" for second, watts in _curve(gpu)),
        *(f"process {pid}" for pid in gpu.processes),
    ]
    return lines + _mig_lines(gpu) + _trouble_lines(gpu)


def _curve(gpu: Gpu) -> tuple[Row, ...]:
    return gpu.curve if gpu.load_w is None else constant(gpu.load_w[0])


def _mig_lines(gpu: Gpu) -> list[str]:
    if gpu.migs is None:
        return []
    return [f"mig {mig.uuid} {mig.profile} {mig.memory_mib}" for mig in gpu.migs] or ["mig"]


def _trouble_lines(gpu: Gpu) -> list[str]:
    once = {
        "refresh": gpu.refresh,
        "seen": gpu.seen,
        "low_pass_s": None if gpu.low_pass_s is None else (gpu.low_pass_s,),
        "load_w": gpu.load_w,
        "counter_reset": None if gpu.counter_reset_s is None else (gpu.counter_reset_s,),
        "counter_stuck": None if gpu.counter_stuck_s is None else (gpu.counter_stuck_s,),
        "counter_jump": gpu.counter_jump,
        "power_spike": gpu.power_spike,
    }
    return [
        *(f"{word} {_words(values)}" for word, values in once.items() if values is not None),
        *(f"throttle {one.from_s} {one.until_s} {one.reasons:x} {one.sm_mhz}" for one in gpu.throttles),
        *(f"fault {one.function} {one.code} {one.from_s} {one.until_s} {one.slow_ms}" for one in gpu.faults),
    ]


def _words(values: object) -> str:
    return " ".join(str(value) for value in values)  # type: ignore[attr-defined]


def constant(power_w: float) -> tuple[Row, ...]:
    """The same power for ever."""
    return (0.0, power_w), (1.0, power_w)


def square(high_w: float, low_w: float, *, period_s: float) -> tuple[Row, ...]:
    """High for half a period, low for the other half."""
    half_s = period_s / 2
    return (0.0, high_w), (half_s, high_w), (half_s, low_w), (period_s, low_w)


def ramp(low_w: float, high_w: float, *, period_s: float) -> tuple[Row, ...]:
    """Rising evenly, then at once back down."""
    return (0.0, low_w), (period_s, high_w)


def random_walk(
    low_w: float, high_w: float, *, seed: int, step_s: float = 0.05, steps: int = 4000
) -> tuple[Row, ...]:
    """Small seeded steps that stay within bounds."""
    rng, power_w, rows = random.Random(seed), (low_w + high_w) / 2, []
    for step in range(steps):
        rows.append((step * step_s, power_w))
        power_w = min(high_w, max(low_w, power_w + rng.gauss(0, (high_w - low_w) / 20)))
    return tuple(rows)


def ending(curve: tuple[Row, ...], *, end_s: float, idle_w: float, idle_s: float) -> tuple[Row, ...]:
    """A curve repeated up to a second, and then so many seconds of idling."""
    period_s, rows = curve[-1][0], []
    for start_s in (number * period_s for number in range(math.ceil(end_s / period_s))):
        rows += [(start_s + at_s, watts) for at_s, watts in curve if start_s + at_s < end_s]
    return (*rows, (end_s, rows[-1][1]), (end_s, idle_w), (end_s + idle_s, idle_w))


def recorded(path: Path = TRACE) -> tuple[Row, ...]:
    """A trace with columns t_ms and power_w."""
    with path.open(newline="") as file:
        return tuple((float(row["t_ms"]) / 1000, float(row["power_w"])) for row in csv.DictReader(file))


def uuid_of(index: int, *, prefix: str = "GPU") -> str:
    """A UUID that is easy to tell apart from its neighbours."""
    return f"{prefix}-{index:08x}-5117-4ed1-a7ed-{index:012x}"


def hosts_gpus(count: int, *, curve: tuple[Row, ...] | None = None) -> Scenario:
    """So many H100s; each draws the recorded serving trace unless a curve is given."""
    rows = recorded() if curve is None else curve
    gpus = [
        Gpu(uuid=uuid_of(index), pci=f"00000000:{0x18 + 8 * index:02X}:00.0", curve=rows)
        for index in range(count)
    ]
    return Scenario(gpus=gpus)
