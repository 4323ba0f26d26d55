"""Calibrations of sensors: what an experiment's samples say of each one that it calibrated, beside the load that its regions tell of."""

from collections.abc import Iterator, Mapping
from typing import Any

from llem.projections.derive.clocks import timestamp
from llem.projections.derive.experiment import Derived
from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.source import Device, Source
from llem.results.calibration import REGION, LoadTrace, SensorCalibration, estimate
from llem_events.events import Estimated, MeteredDevice, SensorCalibrated

# estimate -> column of the table
COLUMNS = {
    "power_refresh_s": "power_refresh_sec",
    "energy_refresh_s": "energy_refresh_sec",
    "averaging_window_s": "averaging_window_sec",
    "delay_s": "delay_sec",
    "seen_share": "seen_share",
    "counter_over_power": "counter_over_power",
    "idle_w": "idle_w",
    "idle_spread_w": "idle_spread_w",
    "load_w": "load_w",
    "settling_s": "settling_sec",
}
SENSORS = {"power_mw": "power_w", "power_average_mw": "power_average_w"}
BESIDE = ("energy_j", "temperature_c", "throttle_reasons")


def calibrations(source: Source, derived: Derived) -> Iterator[dict[str, Any]]:
    """One row per sensor that this experiment calibrated; what it told later runs of it stands in the event."""
    by_id = {segment.segment_id: segment for segment in derived.facts.segments}
    sampled = {
        (metered.device.host, metered.device.uuid): (process, metered)
        for process in derived.facts.processes
        for _, metered in process.every_device
    }
    for fact in derived.facts.all:
        if isinstance(fact.event, SensorCalibrated) and fact.event.experiment_id is None:
            told, calibrated_ns = fact.event, derived.clocks.wall_ns(by_id[fact.segment_id], fact.at_ns)
            process, metered = sampled.get((told.host, told.device_uuid), (None, None))
            yield {
                "experiment_id": derived.facts.experiment_id,
                "host": told.host,
                "device_uuid": told.device_uuid,
                "device_name": None if metered is None else metered.device.name,
                "driver": told.driver,
                "sensor": SENSORS.get(told.sensor, told.sensor),
                "calibrated_ns": calibrated_ns,
                "calibrated_time": timestamp(calibrated_ns),
                **_columns(_estimated(source, told, process, metered)),
            }


def _estimated(
    source: Source, told: SensorCalibrated, process: ProcessFacts | None, metered: MeteredDevice | None
) -> SensorCalibration:
    """By today's formulas; who else had the device open, only the driver knew."""
    if process is None or metered is None or told.sensor not in SENSORS:
        return SensorCalibration.without("the log holds no samples of it")
    device = Device(process.process_index, told.device_uuid)
    _, *span = source.extent(device)
    power = SENSORS[told.sensor]
    at_ns, columns = source.samples(device, (span[0], span[1]), (power, *BESIDE))
    loads = [region for region in process.regions if region.name == REGION]
    return estimate(
        LoadTrace.of(
            at_ns,
            power_w=columns[power],
            **{name: columns[name] for name in BESIDE},
            busy_ns=[(load.began_ns, load.ended_ns) for load in loads if load.ended_ns is not None],
            others_busy=told.others_busy,
            power_limit_mw=metered.device.power_limit_mw,
        )
    )


def told_anew(row: Mapping[str, Any]) -> SensorCalibrated:
    """What a row tells later runs."""
    estimates: dict[str, Any] = {
        name: Estimated(
            value=row[column],
            low=row[f"{column}_low"],
            high=row[f"{column}_high"],
            reason=row["reasons"].get(column),
        )
        for name, column in COLUMNS.items()
    }
    columns = ("host", "device_uuid", "driver", "reason", "averages", "explained")
    sensor = next((name for name, column in SENSORS.items() if column == row["sensor"]), row["sensor"])
    return SensorCalibrated(sensor=sensor, **{name: row[name] for name in columns}, **estimates)


def _columns(found: SensorCalibration) -> dict[str, Any]:
    estimates = {COLUMNS[name]: each for name, each in found.estimates.items()}
    row: dict[str, Any] = {
        "reason": found.reason,
        "averages": found.averages,
        "explained": found.explained,
        "reasons": {column: each.reason for column, each in estimates.items() if each.reason is not None},
    }
    for column, each in estimates.items():
        row |= {column: each.value, f"{column}_low": each.low, f"{column}_high": each.high}
    return row
