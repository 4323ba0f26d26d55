"""Samples of a device added up, some hundred at a time: what can be read in the place of all of them where no edge lies between.

An experiment that is read whole needs none, and has none where it was small when it was new. A piece is so many consecutive samples of one device in one segment, wherever a catch-up began: one that was written in two parts has two
rows, whose whole numbers add up to those of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llem.projections.arrow_stream import measured, repeated
from llem.projections.cells import Batch
from llem.projections.log_cells import Identity, joined, key_cells
from llem.results.throttling import ANY_REASON
from llem_events import SAMPLE_COLUMNS
from llem_events.columns import Column
from llem_events.replay import SampleBatch

# Of one experiment that is read whole: about 100 bytes of memory each.
SMALL_ROWS = 2**16
_ROWS_OF_A_BYTE = 1 / 8  # of compressed requests, with the times of their tokens
WEIGHT_SQL = f"samples + CASE WHEN role = 'sampler' THEN 0 ELSE applied_bytes * {_ROWS_OF_A_BYTE} END"
PIECE_SAMPLES = 256
WATCHED = tuple(name for name in SAMPLE_COLUMNS if name != "at_ns")
SUMMED = ("temperature_c", "gpu_utilisation_pct", "memory_utilisation_pct", "memory_used_bytes")
_MOST = 2.0**62  # of a sum of products
Ints = NDArray[np.int64]
_NUMBERS = {
    "piece": "number among those of the device in the segment, from 0",
    "samples": "samples in it",
    "first_ns": "[ns, monotonic] earliest of them",
    "last_ns": "[ns, monotonic] latest of them",
    "disordered": "samples that were not later than the one before",
    "longest_gap_ns": "[ns] longest time between two of them",
    **{
        f"{name}_{what}": meaning.format(name)
        for name in WATCHED
        for what, meaning in (
            ("known", "samples with a known {}"),
            ("least", "least known {}, in the unit of its name; NULL without any"),
            ("most", "largest known {}, in the unit of its name; NULL without any"),
        )
    },
    **{f"{name}_sum": f"sum of the known {name}" for name in SUMMED},
    "power_first_mw": "[mW] power of the first sample; NULL where any is not known",
    "power_last_mw": "[mW] power of the last sample; NULL where any is not known",
    "power_trapezoids": "[mW ns] sum over neighbours of the sum of their powers times the time between them; NULL where any is not known",
    "power_steps": "[mW ns] sum over neighbours of the difference of their powers times the time between them; NULL where any is not known",
    "energy_first_mj": "[mJ] energy counter of the first sample; NULL where any is not known",
    "energy_last_mj": "[mJ] energy counter of the last sample; NULL where any is not known",
    "energy_falls": "samples with a lower energy counter than the one before; NULL where any is not known",
    "throttled": "samples but the last that report a reason to be slower; NULL where any is not known",
    "throttled_ns": "[ns] time from each of these to the next sample; NULL where any is not known",
    "throttle_last": "reasons of the last sample; NULL where any is not known",
    "throttle_bits": "all reasons of all samples but the last; NULL where any is not known",
}
_KEYS = {
    "experiment_id VARCHAR": "experiment",
    "process_index INTEGER": "worker whose sampler took them",
    "segment_id VARCHAR": "segment that they stand in",
    "device_uuid VARCHAR": "device",
    "meter VARCHAR": "what read them",
}
PIECES_SQL = "\n".join(
    [
        f"CREATE TABLE sample_pieces ( -- {PIECE_SAMPLES} consecutive samples of a device added up, for what needs not each of them; none of small experiments",
        *(f"    {column}, -- {meaning}" for column, meaning in _KEYS.items()),
        *(f"    {name} BIGINT, -- {meaning}" for name, meaning in _NUMBERS.items()),
        ");\n",
    ]
)


def is_small(weight: float) -> bool:
    """Whether an experiment is read whole."""
    return weight <= SMALL_ROWS


def weight_of(role: str | None, *, samples: int, applied_bytes: int) -> float:
    """About how many rows take as much memory as one segment of it; WEIGHT_SQL is the same."""
    return samples + (0 if role == "sampler" else applied_bytes * _ROWS_OF_A_BYTE)


class Pieces(NamedTuple):
    """Some of one batch of samples: each number of all of them."""

    identity: Identity
    meter: str
    device_uuid: str
    numbers: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.numbers["piece"].values)


class Counted:
    """Cuts the samples of one segment, as they come, into pieces."""

    def __init__(self, before: Mapping[tuple[str, str], int] | None = None) -> None:
        """With how many samples of a meter and device came before."""
        self._before = dict(before or {})

    def pieces(self, identity: Identity, batch: SampleBatch) -> Iterator[Pieces]:
        """Those of the next batch, in order."""
        key = batch.meter, batch.device_uuid
        before = self._before.get(key, 0)
        self._before[key] = before + batch.samples
        for first, end in _cuts(before, batch.samples):
            yield Pieces(identity, *key, _block(batch, first, end, before))


def _cuts(before: int, samples: int) -> Iterator[tuple[int, int]]:
    """Samples up to the end of the piece that has begun, those of whole pieces, and those of the one that begins."""
    head = min(-before % PIECE_SAMPLES, samples)
    whole = head + (samples - head) // PIECE_SAMPLES * PIECE_SAMPLES
    for first, end in ((0, head), (head, whole), (whole, samples)):
        if end > first:
            yield first, end


def _block(batch: SampleBatch, first: int, end: int, before: int) -> dict[str, Column]:
    """The numbers of some samples, which are one part of a piece or whole pieces."""
    width = min(end - first, PIECE_SAMPLES)
    columns = {name: _folded(column, first, end, width) for name, column in batch.columns.items()}
    rows = (end - first) // width
    numbers = {"piece": Column((before + first) // PIECE_SAMPLES + np.arange(rows))}
    gaps_ns = np.diff(columns["at_ns"].values, axis=1)
    numbers |= _of_times(columns["at_ns"].values, gaps_ns)
    for name in WATCHED:
        numbers |= _of_column(name, columns[name])
    for name in SUMMED:
        values, missing = columns[name]
        numbers[f"{name}_sum"] = Column((values if missing is None else values * ~missing).sum(axis=1))
    numbers |= _of_power(columns["power_mw"], gaps_ns, numbers)
    return numbers | _of_counter(columns["energy_mj"]) | _of_throttling(columns["throttle_reasons"], gaps_ns)


def _folded(column: Column, first: int, end: int, width: int) -> Column:
    values, missing = column
    return Column(
        values[first:end].reshape(-1, width),
        None if missing is None else missing[first:end].reshape(-1, width),
    )


def _of_times(at_ns: Ints, gaps_ns: Ints) -> dict[str, Column]:
    return {
        "samples": Column(np.full(len(at_ns), at_ns.shape[1])),
        "first_ns": Column(at_ns.min(axis=1)),
        "last_ns": Column(at_ns.max(axis=1)),
        "disordered": Column(np.count_nonzero(gaps_ns <= 0, axis=1)),
        "longest_gap_ns": Column(gaps_ns.max(axis=1, initial=0)),
    }


def _of_column(name: str, column: Column) -> dict[str, Column]:
    values, missing = column
    if missing is None:
        known = np.full(len(values), values.shape[1])
        least, most, none = values.min(axis=1), values.max(axis=1), None
    else:
        known = np.count_nonzero(~missing, axis=1)
        ends = np.iinfo(np.int64)
        least = np.where(missing, ends.max, values).min(axis=1)
        most = np.where(missing, ends.min, values).max(axis=1)
        none = known == 0
    return {
        f"{name}_known": Column(known),
        f"{name}_least": Column(least, none),
        f"{name}_most": Column(most, none),
    }


def _of_power(column: Column, gaps_ns: Ints, numbers: Mapping[str, Column]) -> dict[str, Column]:
    """Whole numbers, which add up to the same in any order; none where a sum could be too large for them."""
    power_mw, missing = column
    length_ns, least_mw, most_mw = (
        numbers[name].values.astype(np.float64) for name in ("last_ns", "power_mw_least", "power_mw_most")
    )
    length_ns -= numbers["first_ns"].values
    # Where time goes back it is counted more than once.
    disordered = numbers["disordered"].values > 0
    unknown = disordered | (2.0 * np.maximum(np.abs(least_mw), np.abs(most_mw)) * length_ns >= _MOST)
    if missing is not None:
        unknown |= missing.any(axis=1)
    before_mw, after_mw = power_mw[:, :-1], power_mw[:, 1:]
    return {
        "power_first_mw": Column(power_mw[:, 0].copy(), unknown),
        "power_last_mw": Column(power_mw[:, -1].copy(), unknown),
        "power_trapezoids": Column(_products(before_mw + after_mw, gaps_ns), unknown),
        "power_steps": Column(_products(np.abs(after_mw - before_mw), gaps_ns), unknown),
    }


def _products(factors: Ints, gaps_ns: Ints) -> Ints:
    """Of each piece added up, without an array of them."""
    sums: Ints = np.einsum("ij,ij->i", factors, gaps_ns)
    return sums


def _of_counter(column: Column) -> dict[str, Column]:
    energy_mj, missing = column
    unknown = None if missing is None else np.asarray(missing.any(axis=1))
    return {
        "energy_first_mj": Column(energy_mj[:, 0].copy(), unknown),
        "energy_last_mj": Column(energy_mj[:, -1].copy(), unknown),
        "energy_falls": Column(np.count_nonzero(energy_mj[:, 1:] < energy_mj[:, :-1], axis=1), unknown),
    }


def _of_throttling(column: Column, gaps_ns: Ints) -> dict[str, Column]:
    """A sample speaks for the time until the next one."""
    reasons, missing = column
    speaking = reasons[:, :-1]
    reported = (speaking & ANY_REASON) != 0
    unknown = None if missing is None else np.asarray(missing.any(axis=1))
    return {
        "throttled": Column(np.count_nonzero(reported, axis=1), unknown),
        "throttled_ns": Column(_products(reported.astype(np.int64), gaps_ns), unknown),
        "throttle_last": Column(reasons[:, -1].copy(), unknown),
        "throttle_bits": Column(np.bitwise_or.reduce(speaking, axis=1), unknown),
    }


def piece_batch(parts: Sequence[Pieces]) -> Batch:
    """Rows of the table, in order."""
    counts = [len(part) for part in parts]
    numbers = {name: joined([part.numbers[name] for part in parts]) for name in _NUMBERS}
    cells = {
        **key_cells([part.identity for part in parts], counts),
        "device_uuid": repeated([part.device_uuid for part in parts], counts),
        "meter": repeated([part.meter for part in parts], counts),
        **{name: measured(column) for name, column in numbers.items()},
    }
    return Batch(cells, {name: name for name in cells})
