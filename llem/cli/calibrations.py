"""What `llem calibrate` found out, for people: each estimate with its interval, or why there is none."""

from collections.abc import Iterator, Sequence
from typing import TextIO

import duckdb
import msgspec
from rich.text import Text

from llem.cli.console import folded, on_one_line
from llem.cli.table import console_for, draw, plain_table
from llem.sql import rows_by_name

SELECTED = """
SELECT * FROM calibrations WHERE experiment_id = ? ORDER BY host, device_uuid, sensor DESC
"""
NAMES = {"power_w": "power", "power_average_w": "average power"}
# column, name, unit, factor
FIGURES = (
    ("power_refresh_sec", "a new reading every", "ms", 1e3),
    ("averaging_window_sec", "averages over", "ms", 1e3),
    ("delay_sec", "late by", "ms", 1e3),
    ("seen_share", "sees of the time", "%", 100.0),
    ("energy_refresh_sec", "energy counter ticks every", "ms", 1e3),
    ("counter_over_power", "counter over power", "%", 100.0),
    ("idle_w", "idle power", "W", 1.0),
    ("idle_spread_w", "its standard deviation", "W", 1.0),
    ("load_w", "power under load", "W", 1.0),
    ("settling_sec", "temperature settles after", "s", 1.0),
)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table."""

    host: str
    device_uuid: str
    device_name: str | None
    driver: str | None
    sensor: str
    reason: str | None
    averages: str | None
    explained: float | None
    estimates: dict[str, tuple[float | None, float | None, float | None]]  # value, low, high
    reasons: dict[str, str]


def calibrations_of(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> list[Calibration]:
    """Those of one experiment; none of one that calibrated nothing."""
    return [
        Calibration(
            **{name: row[name] for name in _PLAIN},
            estimates={
                column: (row[column], row[f"{column}_low"], row[f"{column}_high"]) for column, *_ in FIGURES
            },
        )
        for row in rows_by_name(connection.execute(SELECTED, [experiment_id]))
    ]


_PLAIN = [name for name in Calibration.__struct_fields__ if name != "estimates"]


def write_calibrations(out: TextIO, found: Sequence[Calibration]) -> None:
    """A table for each sensor, and why nothing or no more can be said."""
    console = console_for(out)
    for each in found:
        driver = f", driver {each.driver}" if each.driver else ""
        title = f"{NAMES.get(each.sensor, each.sensor)} of {each.device_uuid}, {each.device_name}{driver}"
        console.print(Text(folded(on_one_line(title), out), style="bold"), soft_wrap=True)
        if each.reason is None:
            table = plain_table()
            table.add_column("figure")
            table.add_column("value", justify="right")
            table.add_column("95 % interval", justify="right")
            table.add_column("unit")
            for row in _rows(each):
                table.add_row(*map(Text, row))
            draw(console, table)
        for line in _remarks(each):
            console.print(Text(folded(on_one_line(line), out)), soft_wrap=True)


def _rows(each: Calibration) -> Iterator[tuple[str, str, str, str]]:
    for column, name, unit, factor in FIGURES:
        value, low, high = each.estimates[column]
        if value is not None:
            interval = "" if low is None or high is None else f"{low * factor:,.4g} to {high * factor:,.4g}"
            yield name, f"{value * factor:,.4g}", interval, unit


def _remarks(each: Calibration) -> Iterator[str]:
    if each.reason is not None:
        yield f"not calibrated: {each.reason}"
        return
    explained = "" if each.explained is None else f"; the load explains {each.explained:.0%} of it"
    yield f"a reading is {_kind(each)}{explained}"
    named = {column: name for column, name, *_ in FIGURES}
    for column, reason in each.reasons.items():
        yield f"{named.get(column, column)}: unknown: {reason}"


def _kind(each: Calibration) -> str:
    kinds = {
        "boxcar": "the mean over a window",
        "none": "the power of a moment",
        "other": "no mean over a window",
    }
    return kinds.get(each.averages or "", "of a kind that is not known")
