"""What a GPU's power sensors make of square waves: a load of known times beside every value that NVML gives, as often as it answers.

    python -m benchmarks.gpu_sensors record FOLDER     # 70 s on the first visible NVIDIA GPU; needs torch
    python -m benchmarks.gpu_sensors show FOLDER       # how often values change, and each wave's power by every sensor

`record` writes loads.csv, when which wave's load began and ended, and sensors.csv, a line for every change of a value. Times
are milliseconds since the first reading, on the host's monotonic clock.
"""

import argparse
import csv
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llem.results.estimates import Estimate
from llem.results.sensor_response import Load, sensor_response

Floats = npt.NDArray[np.float64]

SENSORS = ("instant_w", "average_w", "counter_j")
READ_EVERY_S = 0.002
IDLE_BEFORE_S, IDLE_BETWEEN_S, IDLE_AFTER_S = 6.0, 2.0, 8.0
MATRIX = 4096


class Wave(NamedTuple):
    """A load that is on for `duty` of every period."""

    name: str
    period_s: float
    duty: float
    periods: int


WAVES = (
    Wave("8 s, half on", 8.0, 0.5, 2),
    Wave("400 ms, half on", 0.4, 0.5, 15),
    Wave("100 ms, half on", 0.1, 0.5, 50),
    Wave("1 s, a quarter on", 1.0, 0.25, 6),
    Wave("28 ms, half on", 0.028, 0.5, 150),
    Wave("constant", 12.0, 1.0, 1),
)


def watch(lines: Any, stop: Any) -> None:
    """Put a line at every change: when it was read, and the three values."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    fields = [
        pynvml.NVML_FI_DEV_POWER_INSTANT,
        pynvml.NVML_FI_DEV_POWER_AVERAGE,
        pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
    ]
    before: list[int] = []
    found = []
    while not stop.is_set():
        answers = pynvml.nvmlDeviceGetFieldValues(handle, fields)
        values = [answer.value.ullVal for answer in answers]
        if values != before:
            found.append((time.monotonic_ns(), *values))
            before = values
        time.sleep(READ_EVERY_S)
    lines.put(found)


def load(edges: Any) -> None:
    """Multiply matrices in every wave's time, and put when each load began and ended."""
    import torch

    left = torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    right, product = torch.randn_like(left), torch.empty_like(left)

    def busy(seconds: float) -> tuple[int, int]:
        began_ns = time.monotonic_ns()
        while time.monotonic_ns() < began_ns + seconds * 1e9:
            torch.matmul(left, right, out=product)
            torch.cuda.synchronize()
        return began_ns, time.monotonic_ns()

    busy(0.5)  # libraries load on first use
    time.sleep(IDLE_BEFORE_S)
    found = []
    for wave in WAVES:
        due_s = time.monotonic()
        for _ in range(wave.periods):
            found.append((wave.name, *busy(wave.period_s * wave.duty)))
            due_s += wave.period_s
            time.sleep(max(0.0, due_s - time.monotonic()))
        time.sleep(IDLE_BETWEEN_S)
    time.sleep(IDLE_AFTER_S)
    edges.put(found)


def record(folder: Path) -> None:
    """Load the GPU and watch it, each in a process of its own, and write what was seen."""
    context = multiprocessing.get_context("spawn")
    stop, lines, edges = context.Event(), context.Queue(), context.Queue()
    watching = context.Process(target=watch, args=(lines, stop))
    loading = context.Process(target=load, args=(edges,))
    watching.start()
    loading.start()
    loads = edges.get(timeout=300)
    stop.set()
    write(folder, lines.get(timeout=60), loads)
    loading.join()
    watching.join()


def write(folder: Path, lines: Sequence[Sequence[int]], loads: Sequence[tuple[str, int, int]]) -> None:
    """Both files; NVML's milliwatts and millijoules as watts, and as joules since the first reading."""
    folder.mkdir(parents=True, exist_ok=True)
    first_ns, _, _, first_mj = lines[0]

    def ms(at_ns: int) -> str:
        return f"{(at_ns - first_ns) / 1e6:.1f}"

    with (folder / "sensors.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("t_ms", *SENSORS))
        rows.writerows(
            (ms(at_ns), instant / 1e3, average / 1e3, round((energy - first_mj) / 1e3, 3))
            for at_ns, instant, average, energy in lines
        )
    with (folder / "loads.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("wave", "began_ms", "ended_ms"))
        rows.writerows((name, ms(began), ms(ended)) for name, began, ended in loads)


class Trace(NamedTuple):
    """Seconds and values, both of shape (changes,), of every sensor; in seconds the spans of each wave, and when the load was on."""

    values: dict[str, tuple[Floats, Floats]]
    spans: dict[str, tuple[float, float]]
    loads: list[tuple[float, float]]


def read(folder: Path) -> Trace:
    """What `record` wrote."""
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
    """Record, or show what was recorded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("record", "show"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.what == "record":
        record(options.folder)
    print("\n".join(table(read(options.folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
