"""Samples of one device in and around a span, and what they say of it."""

from collections.abc import Mapping

import duckdb
import numpy as np
from numpy.typing import NDArray

from llem.projections.derive.history import ProcessFacts, Span
from llem.results.phases import Trace
from llem.results.power import cumulative_energy_j, integral_uncertainty_j
from llem.units import MJ_PER_J, NS_PER_S, seconds

MARGIN_NS = 5 * NS_PER_S  # so that the power at an edge lies between two samples
EXTRAPOLATED_SEC = 0.5
DRIVER_AVERAGE_SEC = 1.0
COLUMNS = (
    "power_w",
    "power_average_w",
    "energy_j",
    "temperature_c",
    "gpu_utilisation_pct",
    "memory_utilisation_pct",
    "memory_used_bytes",
    "throttle_reasons",
)
Column = NDArray[np.float64]


class DeviceSamples:
    """Columns of one device's samples, NaN where a value is missing; figures are those of the span."""

    def __init__(self, span: Span, at_ns: NDArray[np.int64], columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._at_sec = (at_ns - span[0]) / NS_PER_S
        self.duration_sec = seconds(span[1] - span[0])
        self._within = (self._at_sec >= 0) & (self._at_sec <= self.duration_sec)

    @property
    def count(self) -> int:
        """Samples within the span."""
        return int(np.count_nonzero(self._within))

    @property
    def repeated(self) -> int:
        """Samples taken at the moment of another one."""
        return int(np.count_nonzero(np.diff(self._at_sec) <= 0))

    @property
    def counter_ran_backwards(self) -> bool:
        """Whether the energy counter is lower than before, in the span or beside it."""
        return bool((np.diff(self._known("energy_j")[1]) < 0).any())

    @property
    def max_gap_sec(self) -> float:
        """The longest time without a sample, of power where the device has any; edges included."""
        powered, _ = self.power
        at_sec = powered if len(powered) else self._at_sec
        inside = at_sec[(at_sec >= 0) & (at_sec <= self.duration_sec)]
        return float(np.diff(inside, prepend=0.0, append=self.duration_sec).max())

    @property
    def integrated_energy_j(self) -> float | None:
        """Power integrated over the span; None without two samples in it, or where an edge is far from any."""
        at_sec, power_w = self.power
        if np.count_nonzero((at_sec >= 0) & (at_sec <= self.duration_sec)) < 2 or not self._reaches_edges(
            at_sec
        ):
            return None
        return float(cumulative_energy_j(at_sec, power_w, edges_sec=(0.0, self.duration_sec))[-1])

    def integral_uncertainty_j(self, *, power_window_sec: float, power_limit_w: float | None) -> float | None:
        """How far the integrated energy can be from the truth."""
        at_sec, power_w = self.power
        averaged = not len(self._known("power_w")[0])
        return integral_uncertainty_j(
            at_sec,
            power_w,
            start_sec=0.0,
            end_sec=self.duration_sec,
            power_window_sec=max(power_window_sec, DRIVER_AVERAGE_SEC if averaged else 0.0),
            power_limit_w=power_limit_w,
        )

    def trace(self, *, counter_tick_sec: float | None, power_window_sec: float, made_up: str | None) -> Trace:
        """Power and counter in and around the span, in seconds from its start."""
        return Trace(
            at_sec=self._at_sec,
            power_w=self._columns["power_w"],
            energy_j=self._columns["energy_j"],
            counter_tick_sec=counter_tick_sec,
            power_window_sec=power_window_sec,
            made_up=made_up,
        )

    def _reaches_edges(self, at_sec: Column) -> bool:
        """Whether the power beyond the samples is known by its neighbour: a device that was lost has no power after it."""
        unknown_sec = max(at_sec[0], self.duration_sec - at_sec[-1])
        return bool(unknown_sec <= max(EXTRAPOLATED_SEC, 2 * np.median(np.diff(at_sec))))

    @property
    def counted_energy_j(self) -> float | None:
        """Energy counter at the end minus at the start, each between two samples; None where either is beyond them.

        None too where the counter ran backwards, and over no time. Subtracted in whole millijoules, as it was read.
        """
        at_sec, energy_j = self._known("energy_j")
        if (
            not len(at_sec)
            or at_sec[0] > 0
            or at_sec[-1] < self.duration_sec
            or self.duration_sec <= 0
            or (np.diff(energy_j) < 0).any()
        ):
            return None
        gained_mj = np.rint(energy_j * MJ_PER_J) - np.rint(energy_j[0] * MJ_PER_J)
        opened_mj, closed_mj = np.interp((0.0, self.duration_sec), at_sec, gained_mj)
        return float(closed_mj - opened_mj) / MJ_PER_J

    @property
    def power(self) -> tuple[Column, Column]:
        """Seconds from the span's start, and watts; the driver's average where it has nothing better."""
        instant = self._known("power_w")
        return instant if len(instant[0]) else self._known("power_average_w")

    def values(self, column: str) -> Column:
        """Known values of a column within the span."""
        within = self._columns[column][self._within]
        return within[~np.isnan(within)]

    def largest(self, column: str) -> float | None:
        """Largest known value within the span; None where there is none."""
        known = self.values(column)
        return float(known.max()) if len(known) else None

    @property
    def temperature_drift_c(self) -> float | None:
        """Highest minus lowest temperature within the span."""
        temperatures_c = self.values("temperature_c")
        return float(temperatures_c.max() - temperatures_c.min()) if len(temperatures_c) else None

    def throttled(self, mask: int) -> tuple[Column, Column] | None:
        """Start in seconds and length of every stretch whose sample reports a reason in `mask`; None where none is read.

        A sample speaks for the time until the next one, so that elapsed time is counted and not samples.
        """
        at_sec, reasons = self._known("throttle_reasons")
        if not len(at_sec):
            return None
        edges = np.clip(np.append(at_sec, self.duration_sec), 0.0, self.duration_sec)
        lengths = np.diff(edges)
        reported = ((np.clip(reasons, 0, 2**53).astype(np.int64) & mask) != 0) & (lengths > 0)
        return edges[:-1][reported], lengths[reported]

    def _known(self, column: str) -> tuple[Column, Column]:
        values = self._columns[column]
        known = ~np.isnan(values)
        return self._at_sec[known], values[known]


def load_samples(
    connection: duckdb.DuckDBPyConnection, process: ProcessFacts, device_uuid: str, span: Span
) -> DeviceSamples:
    """Samples of a device as its worker's sampler saw it, from a little before the span to a little after."""
    columns = ", ".join(f"{name}::DOUBLE AS {name}" for name in COLUMNS)
    rows = connection.execute(
        f"SELECT at_ns, {columns} FROM samples WHERE experiment_id = ? AND process_index = ? AND device_uuid = ? "
        "AND at_ns BETWEEN ? AND ? ORDER BY at_ns",
        [
            process.segment.experiment_id,
            process.process_index,
            device_uuid,
            span[0] - MARGIN_NS,
            span[1] + MARGIN_NS,
        ],
    ).fetchnumpy()
    known = {name: np.ma.filled(rows[name].astype(np.float64), np.nan) for name in COLUMNS}
    return DeviceSamples(span, np.asarray(rows["at_ns"], np.int64), known)
