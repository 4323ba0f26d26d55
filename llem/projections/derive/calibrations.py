"""Calibrations of sensors: the rows of those that an experiment found out, and what a device's figures rely on."""

from collections.abc import Iterator
from typing import Any

from llem.projections.derive.experiment import Derived
from llem.projections.derive.history import timestamp
from llem_events.events import Estimated, SensorCalibrated

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
}  # field of the event -> column of the table
SENSORS = {"power_mw": "power_w", "power_average_mw": "power_average_w"}


def calibrations(derived: Derived) -> Iterator[dict[str, Any]]:
    """One row per sensor that this experiment calibrated."""
    by_id = {segment.segment_id: segment for segment in derived.facts.segments}
    names = {
        metered.device.uuid: metered.device.name
        for process in derived.facts.processes
        for _, metered in process.every_device
    }
    for fact in derived.facts.all:
        if isinstance(fact.event, SensorCalibrated) and fact.event.experiment_id is None:
            calibrated_ns = derived.clocks.wall_ns(by_id[fact.segment_id], fact.at_ns)
            yield {
                "experiment_id": derived.facts.experiment_id,
                "device_name": names.get(fact.event.device_uuid),
                "calibrated_ns": calibrated_ns,
                "calibrated_time": timestamp(calibrated_ns),
                **_found(fact.event),
            }


def _found(event: SensorCalibrated) -> dict[str, Any]:
    estimates: dict[str, Estimated] = {column: getattr(event, field) for field, column in COLUMNS.items()}
    row: dict[str, Any] = {
        "host": event.host,
        "device_uuid": event.device_uuid,
        "driver": event.driver,
        "sensor": SENSORS.get(event.sensor, event.sensor),
        "reason": event.reason,
        "averages": event.averages,
        "explained": event.explained,
        "reasons": {column: each.reason for column, each in estimates.items() if each.reason is not None},
    }
    for column, each in estimates.items():
        row |= {column: each.value, f"{column}_low": each.low, f"{column}_high": each.high}
    return row
