"""Every fault of a GPU gives None and a reason, never a zero, an exception or a wait."""

import pytest

from llem.errors import MeterError
from llem.meters import Meter
from llem.meters.nvml import NvmlMeter, list_gpus, resolve_gpus
from llem_events.events import Reading
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import (
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    Fault,
    Gpu,
    Scenario,
    Throttle,
    constant,
    uuid_of,
)

ALWAYS = {"uuid": uuid_of(0), "curve": constant(400.0)}


def _open(nvml: Simulation, *, restart: tuple[float, float] | None = None, **about: object) -> NvmlMeter:
    nvml.install(Scenario(gpus=[Gpu(**{**ALWAYS, **about}), Gpu(uuid=uuid_of(1))], restart=restart))  # type: ignore[arg-type]
    return NvmlMeter(resolve_gpus(["0"]), clock=nvml.clock)


def _read_until(meter: Meter, nvml: Simulation, seconds: float) -> list[Reading]:
    """Readings at 20 Hz from now until that second of the scenario."""
    readings = []
    while nvml.clock.now_ns() < 1_000_000_000_000 + seconds * 1e9:
        readings.append(meter.read()[0])
        nvml.sleep(0.05)
    return readings


def _codes(meter: Meter) -> list[str]:
    return [code for _, code, _ in meter.faults()]


@pytest.mark.parametrize(
    ("function", "columns"),
    [
        ("power", ["power_mw", "power_average_mw"]),
        ("energy", ["energy_mj"]),
        ("temperature", ["temperature_c"]),
        ("utilisation", ["gpu_utilisation_pct", "memory_utilisation_pct"]),
        ("memory", ["memory_used_bytes"]),
        ("clocks", ["sm_clock_mhz", "memory_clock_mhz"]),
        ("throttle", ["throttle_reasons"]),
        ("limit", ["power_limit_mw"]),
    ],
)
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (NOT_SUPPORTED, "not supported by this device"),
        (NO_PERMISSION, "no permission"),
        (UNKNOWN, "Unknown Error"),
    ],
)
def test_a_function_that_never_worked_is_missing_with_its_reason(
    nvml: Simulation, function: str, columns: list[str], code: int, reason: str
) -> None:
    """The column is None, the reason is in the device's description, and everything else is measured."""
    meter = _open(nvml, faults=[Fault(function=function, code=code)])
    (metered,), (reading,) = meter.devices(), meter.read()
    assert {column: metered.missing.get(column) for column in columns} == dict.fromkeys(columns, reason)
    assert all((value is None) == (column in metered.missing) for column, value in reading._asdict().items())
    assert meter.faults() == []


@pytest.mark.parametrize("function", ["temperature", "memory", "clocks", "throttle", "limit", "utilisation"])
def test_a_function_that_stops_working_is_none_with_a_fault_told_once(
    nvml: Simulation, function: str
) -> None:
    """A failure during the run is one fault, however often it happens, and ends when it ends."""
    meter = _open(nvml, faults=[Fault(function=function, code=UNKNOWN, from_s=2.0, until_s=3.0)])
    readings = _read_until(meter, nvml, 2.9)
    assert None in readings[-1] and readings[-1].power_mw == 400_000
    told = meter.faults()
    assert {code for _, code, _ in told} == {"nvml_error"}
    assert len(told) == len(set(told))
    assert None not in _read_until(meter, nvml, 3.5)[-1]
    assert meter.faults() == []


def test_power_that_stops_working_leaves_the_counter(nvml: Simulation) -> None:
    """No power for a while: None there, energy goes on."""
    meter = _open(nvml, faults=[Fault(function="power", code=UNKNOWN, from_s=2.0, until_s=3.0)])
    last = _read_until(meter, nvml, 2.9)[-1]
    assert (last.power_mw, last.power_average_mw) == (None, None)
    assert last.energy_mj is not None
    assert {"nvml_error"} == set(_codes(meter))
    assert _codes(meter) == []


def test_a_driver_without_field_values_is_read_by_the_older_calls(nvml: Simulation) -> None:
    """Power and energy come from their own functions; such a power is a 1 s average on an H100 and is called so."""
    meter = _open(nvml, fields=frozenset())
    (metered,), (reading,) = meter.devices(), meter.read()
    assert (metered.power_kind, metered.power_window_ns, metered.energy_source) == (
        "average",
        1_000_000_000,
        "counter",
    )
    assert (reading.power_mw, reading.power_average_mw) == (400_000, None)
    assert metered.missing == {"power_average_mw": "not supported by this device"}


def test_older_and_ga100_devices_report_instant_power(nvml: Simulation) -> None:
    """nvmlDeviceGetPowerUsage is documented as instant on GA100 (8.0)."""
    (metered,) = _open(nvml, fields=frozenset(), capability="8.0").devices()
    assert (metered.power_kind, metered.power_window_ns) == ("instant", None)


def test_without_a_counter_energy_is_left_to_integration(nvml: Simulation) -> None:
    """No counter: the source says so, and the edge has its reason."""
    meter = _open(nvml, counter_tick_ms=0.0)
    (metered,), (edge,) = meter.devices(), meter.read_edge()
    assert (metered.energy_source, metered.counter_tick_ns) == ("integrated", None)
    assert (edge.energy_mj, edge.reason) == (None, "not supported by this device")


def test_a_counter_that_never_moves_is_no_counter(nvml: Simulation) -> None:
    """A constant counter would give 0 J; it is missing with what was seen, after half a second at most."""
    started_ns = nvml.clock.now_ns()
    meter = _open(nvml, counter_stuck_s=-1.0)
    (metered,) = meter.devices()
    assert metered.missing["energy_mj"] == "the energy counter did not move in 0.5 s"
    assert metered.energy_source == "integrated"
    assert nvml.clock.now_ns() - started_ns < 600_000_000


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({"counter_reset_s": 3.0}, "counter_reset"),
        ({"counter_jump": (3.0, 50_000_000)}, "counter_jump"),
        ({"counter_stuck_s": 3.0}, "counter_stuck"),
    ],
)
def test_a_counter_that_lies_once_is_never_used_again(
    nvml: Simulation, about: dict[str, object], code: str
) -> None:
    """A window over a reset could look plausible and be wrong, so the counter stays None; power goes on."""
    meter = _open(nvml, **about)
    assert meter.read_edge()[0].energy_mj is not None
    readings = _read_until(meter, nvml, 9.0)
    assert readings[-1].energy_mj is None
    assert readings[-1].power_mw == 400_000
    assert _codes(meter) == [code]
    (edge,) = meter.read_edge()
    assert edge.energy_mj is None and edge.reason and "energy counter" in edge.reason


def test_impossible_power_is_never_used(nvml: Simulation) -> None:
    """More than 1.5 times the limit is None and told once."""
    meter = _open(nvml, power_spike=(2.0, 3.0, 5000.0))
    assert _read_until(meter, nvml, 2.9)[-1].power_mw is None
    assert _codes(meter) == ["power_implausible"]
    assert _read_until(meter, nvml, 3.5)[-1].power_mw == 400_000
    assert _codes(meter) == []


def test_a_lost_gpu_gives_none_for_everything(nvml: Simulation) -> None:
    """Nothing is raised, nothing is zero, and the driver is left alone."""
    meter = _open(nvml, faults=[Fault(function="all", code=GPU_IS_LOST, from_s=2.0)])
    last = _read_until(meter, nvml, 4.0)[-1]
    assert set(last[1:]) == {None}
    assert [(code, text) for _, code, text in meter.faults()] == [("gpu_lost", "the GPU is lost")]
    calls = nvml.calls()
    meter.read()
    assert nvml.calls() == calls
    assert meter.read_edge()[0].reason == "the energy counter could not be read"
    meter.close()


def test_a_lost_gpu_does_not_take_the_others_with_it(nvml: Simulation) -> None:
    """The second GPU is measured on."""
    first = Gpu(uuid=uuid_of(0), faults=[Fault(function="all", code=GPU_IS_LOST, from_s=1.0)])
    nvml.install(Scenario(gpus=[first, Gpu(uuid=uuid_of(1), curve=constant(250.0))]))
    meter = NvmlMeter(resolve_gpus(None), clock=nvml.clock)
    nvml.sleep(1.0)
    assert [reading.power_mw for reading in meter.read()] == [None, 250_000]
    assert [edge.energy_mj is None for edge in meter.read_edge()] == [True, False]
    meter.close()


def test_a_restarted_driver_is_found_again_without_its_counter(nvml: Simulation) -> None:
    """While it is away everything is None; afterwards power is read again and the counter is not trusted."""
    meter = _open(nvml, restart=(2.0, 1.5))
    away = _read_until(meter, nvml, 3.4)[-1]
    assert set(away[1:]) == {None}
    back = _read_until(meter, nvml, 6.0)[-1]
    assert (back.power_mw, back.energy_mj) == (400_000, None)
    assert _codes(meter) == ["driver_restarted"]
    assert meter.read_edge()[0].reason == "the driver was restarted"
    meter.close()


def test_a_slow_driver_is_told(nvml: Simulation) -> None:
    """A call that takes 0.8 s is a fault with its duration; the reading is kept with its own time."""
    meter = _open(nvml, faults=[Fault(function="temperature", slow_ms=800.0, from_s=2.0)])
    last = _read_until(meter, nvml, 4.0)[-1]
    assert last.power_mw == 400_000
    assert [(code, text.split(" took ")[0]) for _, code, text in meter.faults()] == [
        ("slow_driver", "one reading")
    ]


def test_throttling_is_read_with_its_reason_and_clock(nvml: Simulation) -> None:
    """An episode shows as NVML's bit mask and a lower clock, and ends."""
    meter = _open(nvml, throttles=[Throttle(from_s=2.0, until_s=3.0, reasons=0x40, sm_mhz=1200)])
    during = _read_until(meter, nvml, 2.9)[-1]
    after = _read_until(meter, nvml, 3.5)[-1]
    assert (during.throttle_reasons, during.sm_clock_mhz) == (0x40, 1200)
    assert after.throttle_reasons == 0 and after.sm_clock_mhz != 1200


def test_an_absent_driver_is_an_error_with_a_hint(nvml: Simulation) -> None:
    """No driver: one line that says what to try."""
    nvml.install(Scenario(gpus=[], driver_absent=True))
    with pytest.raises(MeterError, match=r"NVML: found the NVIDIA driver is not loaded.*modprobe"):
        list_gpus()


def test_a_driver_of_another_version_is_an_error_with_a_hint(nvml: Simulation) -> None:
    """After an update without a reboot the library and the kernel module differ."""
    nvml.install(Scenario(gpus=[], driver_mismatch=True))
    with pytest.raises(MeterError, match=r"have different versions.*; reboot"):
        list_gpus()


def test_no_gpu_is_an_error(nvml: Simulation) -> None:
    """A driver without a device leaves nothing to measure."""
    nvml.install(Scenario(gpus=[]))
    with pytest.raises(MeterError, match="no GPU to measure: found a driver without a device"):
        resolve_gpus(None)


def test_a_gpu_that_is_lost_at_the_start_is_an_error(nvml: Simulation) -> None:
    """A measurement cannot begin on a GPU that does not answer."""
    nvml.install(
        Scenario(gpus=[Gpu(uuid=uuid_of(0), faults=[Fault(function="handle", code=GPU_IS_LOST, from_s=1.0)])])
    )
    devices = resolve_gpus(None)
    nvml.sleep(1.0)
    with pytest.raises(MeterError, match="the GPU is lost"):
        NvmlMeter(devices, clock=nvml.clock)


def test_a_reading_costs_few_calls(nvml: Simulation) -> None:
    """Power, average and energy come in one call, slow columns five times a second: 85 calls a second at 20 Hz."""
    meter = _open(nvml)
    calls = nvml.calls()
    _read_until(meter, nvml, nvml.clock.now_ns() / 1e9 - 1000 + 10.0)
    assert (nvml.calls() - calls) / 10 <= 86
