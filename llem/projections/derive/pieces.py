"""Samples of one experiment in the pieces that were added up with the log: which of them a question needs one by one, and what the others say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llem.results.power import LeftOut
from llem.results.throttling import ANY_REASON
from llem.units import MJ_PER_J, MW_PER_W, NS_PER_S, SAMPLE_UNITS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
AT_ONCE = 2**17  # samples that are read at once
_FEWEST = 3  # a piece that shows its ends leaves none out
_MOST = 2.0**62  # of a sum of products, as in the table
_MW_NS_PER_J = MW_PER_W * NS_PER_S
# Which column of the log is known of all samples where which number is.
_SERIES = {"power_mw": "power_trapezoids", "energy_mj": "energy_falls", "throttle_reasons": "throttled"}
_DECIDING = (
    "samples",
    "disordered",
    "longest_gap_ns",
    *_SERIES.values(),
    *(f"{name}_known" for name in _SERIES),
)
_OF_ONE_PIECE = ("piece", "segment_id", "meter")
_ENDS = ("power_first_mw", "power_last_mw", "energy_first_mj", "energy_last_mj", "throttle_last")
_NOTHING = {"least": np.iinfo(np.int64).max, "most": np.iinfo(np.int64).min}
Rows = Mapping[str, NDArray[Any]]  # masked where unknown


class Asked(NamedTuple):
    """What a series of samples is for."""

    # On this clock nothing is left out where one of the moments is.
    moments_sec: Floats
    origin_ns: int
    shift_sec: float = 0.0
    longest_ns: float = np.inf  # between two samples of which any is left out
    throttled: int = 0  # so many of the first samples with a reason to be slower are not left out

    def seconds(self, at_ns: Ints) -> Floats:
        """Of this clock."""
        elapsed: Floats = (at_ns - self.origin_ns) / NS_PER_S
        return elapsed + self.shift_sec if self.shift_sec else elapsed


class DevicePieces(NamedTuple):
    """Pieces of one device in the order of time; those that overlap are one, which does not stand alone."""

    first_ns: Ints
    last_ns: Ints
    alone: Mask
    numbers: Rows  # of those that stand alone
    parts: "Parts"

    def touching(self, first_ns: int, last_ns: int) -> slice:
        """Those with samples in a span, or around one of its ends."""
        start = int(np.searchsorted(self.last_ns, first_ns))
        return slice(start, max(start, int(np.searchsorted(self.first_ns, last_ns, side="right"))))

    def ranges(self, first_ns: int, last_ns: int) -> Iterator[tuple[int, int]]:
        """The span in parts of some samples each, between pieces."""
        touching = self.touching(first_ns, last_ns)
        every = np.ones(touching.stop - touching.start, np.bool_)
        for some, _ in self.chunks(touching, every):
            yield int(self.first_ns[some.start]), int(self.last_ns[some.stop - 1])

    def chunks(self, touching: slice, needed: Mask) -> Iterator[tuple[slice, Mask]]:
        """Pieces of which some samples at most are needed, and which of them."""
        samples = self.parts.samples(len(self.first_ns))[touching]
        groups = np.cumsum(np.where(needed, samples, 2)) // AT_ONCE
        edges = [*np.unique(groups, return_index=True)[1].tolist(), len(groups)]
        for start, end in pairwise(edges):
            yield slice(touching.start + start, touching.start + end), needed[start:end]

    def one_by_one(self, touching: slice, first_ns: int, last_ns: int, asked: Asked) -> Mask:
        """Of which pieces all samples are needed."""
        firsts_ns, lasts_ns = self.first_ns[touching], self.last_ns[touching]
        numbers = {name: self.numbers[name][touching] for name in _DECIDING}
        needed = ~(self.alone[touching] & _says_enough(numbers))
        needed |= (firsts_ns < first_ns) | (lasts_ns > last_ns)
        needed |= numbers["longest_gap_ns"] > asked.longest_ns
        firsts_sec, lasts_sec = asked.seconds(firsts_ns), asked.seconds(lasts_ns)
        needed[_places(firsts_sec, lasts_sec, asked.moments_sec)] = True
        if asked.throttled and len(asked.moments_sec):
            throttled = np.ma.filled(numbers["throttled"], 0)
            throttled = np.where(lasts_sec > asked.moments_sec.min(), throttled, 0)
            needed |= (throttled > 0) & (np.cumsum(throttled) - throttled < asked.throttled)
        return np.asarray(needed)


class Parts(NamedTuple):
    """Where the samples of a device stand among all of its experiment: of each part of a piece, in the order of time."""

    piece: Ints
    row: Ints
    rows: Ints

    @property
    def all_rows(self) -> int:
        """Samples of the device."""
        return int(self.rows.sum())

    def samples(self, pieces: int) -> Ints:
        """Of each piece."""
        return np.asarray(np.bincount(self.piece, self.rows, pieces), np.int64)

    def rows_of(self, some: slice, needed: Mask) -> Ints:
        """All rows of those of some pieces that are needed, ascending."""
        first, end = np.searchsorted(self.piece, (some.start, some.stop)).tolist()
        chosen = np.zeros(len(self.piece), np.bool_)
        chosen[first:end] = needed[self.piece[first:end] - some.start]
        rows, counts = self.row[chosen], self.rows[chosen]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.sort(np.repeat(rows, counts) + within)


def _places(firsts_sec: Floats, lasts_sec: Floats, moments_sec: Floats) -> Ints:
    """Pieces that a moment lies in; their ends are no place to look into."""
    places = np.searchsorted(lasts_sec, moments_sec)
    known = places < len(lasts_sec)
    places = places[known]
    inside = (firsts_sec[places] < moments_sec[known]) & (moments_sec[known] < lasts_sec[places])
    return np.asarray(places[inside], np.int64)


def _says_enough(numbers: Rows) -> Mask:
    """Ascending samples of which each column is known of all, or of none."""
    samples = numbers["samples"]
    enough = (samples >= _FEWEST) & (numbers["disordered"] == 0)
    for name, needed in _SERIES.items():
        known = numbers[f"{name}_known"]
        enough &= (known == 0) | ((known == samples) & ~np.ma.getmaskarray(numbers[needed]))
    return np.asarray(enough)


def load_pieces(rows: Rows) -> Mapping[tuple[Any, ...], DevicePieces]:
    """Those of each process and device, from the rows of an experiment in the order of their table."""
    stands = np.cumsum(rows["samples"]) - rows["samples"]
    return {
        key: _of_device(rows, numbers, stands)
        for key, numbers in numbers_of_rows(rows, ("process_index", "device_uuid")).items()
    }


def numbers_of_rows(rows: Rows, names: Sequence[str]) -> Mapping[tuple[Any, ...], Ints]:
    """The numbers of the rows that are alike in some columns, by what stands there."""
    keys = list(zip(*(rows[name].tolist() for name in names), strict=True))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    of_rows = np.fromiter(map(numbers.__getitem__, keys), np.int64, len(keys))
    return {key: np.flatnonzero(of_rows == number) for key, number in numbers.items()}


def _of_device(rows: Rows, numbers: Ints, stands: Ints) -> DevicePieces:
    order = numbers[np.argsort(rows["first_ns"][numbers], kind="stable")]
    parts = {name: column[order] for name, column in rows.items()}
    continues = _continuing(parts)
    whole = _added_up(parts, continues)
    first_ns, last_ns = np.asarray(whole["first_ns"]), np.asarray(whole["last_ns"])
    begins = np.concatenate(([True], first_ns[1:] > np.maximum.accumulate(last_ns)[:-1]))
    places = np.flatnonzero(begins)
    of_parts = (np.cumsum(begins) - 1)[np.cumsum(~continues) - 1]
    return DevicePieces(
        first_ns=first_ns[places],
        last_ns=np.maximum.reduceat(last_ns, places),
        alone=np.diff(places, append=len(begins)) == 1,
        numbers={name: column[places] for name, column in whole.items()},
        parts=Parts(of_parts, stands[order], np.asarray(parts["samples"], np.int64)),
    )


def _continuing(parts: Rows) -> Mask:
    """Parts of the same piece as the part before, all of which was earlier."""
    alike = np.asarray(parts["first_ns"][1:] > np.maximum.accumulate(parts["last_ns"])[:-1])
    for name in _OF_ONE_PIECE:
        alike = alike & np.asarray(parts[name][1:] == parts[name][:-1])
    return np.concatenate(([False], alike))


def _added_up(parts: Rows, continues: Mask) -> Rows:
    """The numbers of pieces as if each had been written at once."""
    whole = {name: column for name, column in parts.items() if column.dtype != object}
    if continues.any():
        starts = np.flatnonzero(~continues)
        ends = np.append(starts[1:], len(continues)) - 1
        numbers = whole | _with_what_lies_between(whole, continues)
        whole = {name: _of_parts(name, column, starts, ends) for name, column in numbers.items()}
    return whole | {"power_trapezoids": _not_too_large(whole)}


def _of_parts(name: str, column: NDArray[Any], starts: Ints, ends: Ints) -> NDArray[Any]:
    """One number of all pieces from those of their parts, which begin and end there."""
    values, unknown = np.ma.getdata(column), np.ma.getmask(column)
    end = name.rpartition("_")[2]
    if unknown is not np.ma.nomask and end in _NOTHING:
        values = np.where(unknown, _NOTHING[end], values)
    at = starts if "_first_" in name else ends
    whole: NDArray[Any] = values[at] if name in _ENDS else _way(name).reduceat(values, starts)
    if unknown is np.ma.nomask or not unknown.any():
        return whole
    missing = (np.logical_and if end in _NOTHING else np.logical_or).reduceat(unknown, starts)
    return np.ma.array(whole, mask=missing)


def _with_what_lies_between(numbers: Rows, continues: Mask) -> dict[str, NDArray[Any]]:
    """Numbers of the parts, with what lies between a part and the one before it in the later one."""

    def before(name: str) -> NDArray[Any]:
        # its own where nothing is before it, so that nothing unknown comes in
        earlier: NDArray[Any] = numbers[name][np.arange(len(continues)) - continues]
        return earlier

    gap_ns = np.where(continues, numbers["first_ns"] - before("last_ns"), 0)
    first_mw, last_mw = numbers["power_first_mw"], before("power_last_mw")
    reported = continues & np.asarray((np.ma.filled(before("throttle_last"), 0) & ANY_REASON) != 0)
    between = {
        "longest_gap_ns": np.maximum(numbers["longest_gap_ns"], gap_ns),
        "power_trapezoids": numbers["power_trapezoids"] + (first_mw + last_mw) * gap_ns,
        "power_steps": numbers["power_steps"] + abs(first_mw - last_mw) * gap_ns,
        "energy_falls": numbers["energy_falls"]
        + (continues & np.ma.filled(numbers["energy_first_mj"] < before("energy_last_mj"), False)),
        "throttled": numbers["throttled"] + reported,
        "throttled_ns": numbers["throttled_ns"] + gap_ns * reported,
        "throttle_bits": numbers["throttle_bits"] | np.where(continues, before("throttle_last"), 0),
    }
    return between


def _not_too_large(numbers: Rows) -> NDArray[Any]:
    """The trapezoids, unknown where they could be too large for whole numbers."""
    ends_mw = [np.ma.filled(numbers[f"power_mw_{end}"], 0).astype(np.float64) for end in ("least", "most")]
    length_ns = np.asarray(numbers["last_ns"] - numbers["first_ns"], np.float64)
    too_large = 2.0 * np.maximum(*map(np.abs, ends_mw)) * length_ns >= _MOST
    trapezoids = numbers["power_trapezoids"]
    return np.ma.masked_where(too_large, trapezoids) if too_large.any() else trapezoids


def _way(name: str) -> np.ufunc:
    """How a number of a piece is made of those of its parts."""
    if name == "first_ns" or name.endswith("least"):
        return np.minimum
    if name in ("last_ns", "longest_gap_ns", "piece") or name.endswith("most"):
        return np.maximum
    return np.bitwise_or if name == "throttle_bits" else np.add


def ends_of(pieces: DevicePieces, some: slice, shown: Mask) -> tuple[Ints, Mapping[str, Floats], LeftOut]:
    """The first and then the last samples of pieces, what they say in the units of the table, and what was left out between them."""

    def number(name: str) -> NDArray[Any]:
        column: NDArray[Any] = pieces.numbers[name][some][shown]
        return column

    def both(name: str) -> Floats:
        return np.concatenate([_doubles(number(name.format(end))) for end in ("first", "last")])

    reasons = _doubles(number("throttle_last"))
    columns = {
        "power_w": both("power_{}_mw") / MW_PER_W,
        "energy_j": both("energy_{}_mj") / MJ_PER_J,
        "throttle_reasons": np.concatenate((reasons, reasons)),
    }
    at_ns = np.concatenate((pieces.first_ns[some][shown], pieces.last_ns[some][shown]))
    left_out = LeftOut(
        samples=np.asarray(number("samples") - 2, np.int64),
        longest_sec=_doubles(number("longest_gap_ns")) / NS_PER_S,
        trapezoids_j=_doubles(number("power_trapezoids")) / 2 / _MW_NS_PER_J,
        half_steps_j=_doubles(number("power_steps")) / 2 / _MW_NS_PER_J,
        highest_w=_doubles(number("power_mw_most")) / MW_PER_W,
        falls=np.ma.filled(number("energy_falls"), 0),
        throttled_sec=_doubles(number("throttled_ns")) / NS_PER_S,
        throttle_bits=np.ma.filled(number("throttle_bits"), 0),
    )
    return at_ns, columns, left_out.after(len(reasons))


def extremes_of(rows: Rows, name: str) -> tuple[float, float] | None:
    """The least and the largest value of a column of the table in pieces; None where none is known."""
    column, units = SAMPLE_UNITS[name]
    return _extremes(rows[f"{column}_least"], rows[f"{column}_most"], units)


def values_of(
    pieces: DevicePieces, some: slice, shown: Mask, name: str
) -> tuple[int, int, float, float | None, float | None]:
    """How many samples are in pieces, of how many a column of the table is known, the sum where it is counted, the least and the largest."""
    column, units = SAMPLE_UNITS[name]

    def number(what: str) -> NDArray[Any]:
        numbers: NDArray[Any] = pieces.numbers[what][some][shown]
        return numbers

    summed = float(number(f"{column}_sum").sum()) if f"{column}_sum" in pieces.numbers else math.nan
    ends = _extremes(number(f"{column}_least"), number(f"{column}_most"), units) or (None, None)
    return int(number("samples").sum()), int(number(f"{column}_known").sum()), summed, *ends


def _extremes(least: NDArray[Any], most: NDArray[Any], units: int | None) -> tuple[float, float] | None:
    lowest, highest = np.ma.compressed(least), np.ma.compressed(most)
    return (_in_units(lowest.min(), units), _in_units(highest.max(), units)) if len(lowest) else None


def _in_units(value: Any, units: int | None) -> float:
    return float(value) if units is None else float(value) / units


def _doubles(column: NDArray[Any]) -> Floats:
    """NaN where it is unknown."""
    doubles = column.astype(np.float64)
    return np.asarray(np.ma.filled(doubles, np.nan))
