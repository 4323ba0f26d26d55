"""What a GPU's power sensors made of square waves: a recorded load beside every value that NVML gave. `llem calibrate` does so with a GPU at hand.

    python -m benchmarks.gpu_sensors benchmarks/data/h200_square_waves     # how often values change, and each wave's power by every sensor

loads.csv says when each wave's load began and ended, sensors.csv has a line for every change of a value. Times are milliseconds since
the first reading, on the host's monotonic clock.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llem.results.sensor_response import Load, sensor_response
from llem.results.student_t import Estimate

Floats = npt.NDArray[np.float64]

SENSORS = ("instant_w", "average_w", "counter_j")
READ_EVERY_S = 0.002  # at the least, when it was recorded


class Trace(NamedTuple):
    """Seconds and values, both of shape (changes,), of every sensor; in seconds the spans of each wave, and when the load was on."""

    values: dict[str, tuple[Floats, Floats]]
    spans: dict[str, tuple[float, float]]
    loads: list[tuple[float, float]]


def read(folder: Path) -> Trace:
    """What was recorded."""
    with (folder / "sensors.csv").open(newline="") as file:
        rows = [[float(cell) for cell in row] for row in itertools.islice(csv.reader(file), 1, None)]
    columns = np.array(rows).T
    values = {}
    for name, column in zip(SENSORS, columns[1:], strict=True):
        changes = np.flatnonzero(np.diff(column, prepend=np.nan))
        values[name] = columns[0][changes] / 1e3, column[changes]
    spans: dict[str, tuple[float, float]] = {}
    loads: list[tuple[float, float]] = []
    with (folder / "loads.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            began_s, ended_s = float(row["began_ms"]) / 1e3, float(row["ended_ms"]) / 1e3
            loads.append((began_s, ended_s))
            spans[row["wave"]] = (spans.get(row["wave"], (began_s, 0.0))[0], ended_s)
    return Trace(values, spans, loads)


def mean_power(trace: Trace, sensor: str, span: tuple[float, float]) -> float:
    """Watts over a span: of a power, the value that stands until the next; of the counter, its rise, interpolated."""
    at_s, values = trace.values[sensor]
    if sensor == "counter_j":
        risen: Floats = np.diff(np.interp(span, at_s, values))
        return float(risen[0]) / (span[1] - span[0])
    inside = at_s[(at_s > span[0]) & (at_s < span[1])]
    edges = np.concatenate(([span[0]], inside, [span[1]]))
    standing = values[np.searchsorted(at_s, edges[:-1], side="right") - 1]
    return float(np.sum(standing * np.diff(edges)) / (span[1] - span[0]))


def table(trace: Trace) -> Iterator[str]:
    """How often each value changes, and the mean power of each wave by every sensor."""
    yield "| | instant power | 1 s average | counter |"
    yield "|---|---|---|---|"
    gaps = [float(np.median(np.diff(trace.values[name][0]))) * 1e3 for name in SENSORS]
    yield "| time between changes, median | " + " | ".join(f"{gap:.0f} ms" for gap in gaps) + " |"
    for wave, span in trace.spans.items():
        counter = mean_power(trace, "counter_j", span)
        apart = (mean_power(trace, name, span) / counter - 1 for name in ("instant_w", "average_w"))
        cells = [f"{100 * each:+.1f} %" for each in apart]
        yield f"| {wave} | " + " | ".join(cells) + f" | {counter:.0f} W |"
    yield f"| the load, by what is fitted to it | {_fitted(trace, 'instant_w')} | {_fitted(trace, 'average_w')} | |"


def readings(trace: Trace, sensor: str) -> tuple[Floats, Floats]:
    """Seconds and values as they were read, of which only changes were kept."""
    at_s, values = trace.values[sensor]
    read_s = np.arange(at_s[0], at_s[-1], READ_EVERY_S)
    return read_s, values[np.searchsorted(at_s, read_s, side="right") - 1]


def _fitted(trace: Trace, sensor: str) -> str:
    """Over how long the sensor averages, and how late it is."""
    found = sensor_response(*readings(trace, sensor), Load.of(trace.loads))
    cells = [
        found.window_s.reason
        or f"a mean over {_span(found.window_s, 1e3, 'ms')}, {_span(found.delay_s, 1e3, 'ms')} late"
    ]
    if found.seen_share.value is not None:
        cells.append(f"sees {_span(found.seen_share, 1e2, '%')} of the time")
    return found.reason or "; ".join(cells)


def _span(found: Estimate, per_unit: float, unit: str) -> str:
    value, low, high = ((each or 0.0) * per_unit for each in (found.value, found.low, found.high))
    return f"{value:.0f} {unit} ({low:.0f} to {high:.0f})"


def main() -> int:
    """Show what was recorded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    print("\n".join(table(read(parser.parse_args().folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
