"""Samples added up some hundred at a time, in memory: what the numbers of a piece are, and which pieces a question needs sample by sample."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llem.projections.derive.pieces import (
    AT_ONCE,
    Asked,
    DevicePieces,
    ends_of,
    extremes_of,
    load_pieces,
    values_of,
)
from llem.projections.sample_pieces import PIECE_SAMPLES, SMALL_ROWS, Counted, is_small, weight_of
from llem_events import columns
from llem_events.events import Reading
from llem_events.replay import SampleBatch

POWER_CAP, SLOWDOWN, NOTHING_TO_DO = 4, 8, 1  # NVML's bits
NEVER = np.empty(0)
MS = 10**6


def read(at_ns: int, power_mw: int | None = 100, **more: int | None) -> Reading:
    known = {"energy_mj": 0, "throttle_reasons": 0, "temperature_c": 50, **more}
    return Reading(at_ns=at_ns, power_mw=power_mw, **known)


def rows_of(
    *batches: Sequence[Reading], device: str = "GPU-0", segment: str = "s"
) -> Mapping[str, NDArray[Any]]:
    """As the table has them, of batches that came one after another."""
    counted, found = Counted(), []
    for batch in batches:
        event = columns.pack(batch, meter="nvml", device_uuid=device)
        of_batch = SampleBatch("nvml", device, len(batch), columns.unpack_all([event]))
        found += [part.numbers for part in counted.pieces(("run", 0, segment, None), of_batch)]
    rows: dict[str, NDArray[Any]] = {}
    for name in found[0]:
        values = np.concatenate([part[name].values for part in found])
        gaps = [
            np.zeros(len(part[name].values), bool) if part[name].missing is None else part[name].missing
            for part in found
        ]
        missing = np.concatenate(gaps)
        rows[name] = np.ma.array(values, mask=missing) if missing.any() else values
    texts = {"segment_id": segment, "device_uuid": device, "meter": "nvml"}
    rows |= {name: np.full(len(values), text, object) for name, text in texts.items()}
    return rows | {"process_index": np.zeros(len(values), np.int64)}


def pieces_of(*batches: Sequence[Reading]) -> DevicePieces:
    return load_pieces(rows_of(*batches))[0, "GPU-0"]


FEW = [
    read(0, 100, energy_mj=5, throttle_reasons=POWER_CAP, temperature_c=50),
    read(10, 300, energy_mj=9, throttle_reasons=NOTHING_TO_DO, temperature_c=None),
    read(30, 200, energy_mj=8, throttle_reasons=SLOWDOWN, temperature_c=53),
    read(60, 200, energy_mj=8, throttle_reasons=POWER_CAP, temperature_c=51),
]
OF_FEW = {
    "piece": 0,
    "samples": 4,
    "first_ns": 0,
    "last_ns": 60,
    "disordered": 0,
    "longest_gap_ns": 30,
    "power_mw_known": 4,
    "power_mw_least": 100,
    "power_mw_most": 300,
    "temperature_c_known": 3,
    "temperature_c_least": 50,
    "temperature_c_most": 53,
    "temperature_c_sum": 154,
    "power_first_mw": 100,
    "power_last_mw": 200,
    "power_trapezoids": 400 * 10 + 500 * 20 + 400 * 30,
    "power_steps": 200 * 10 + 100 * 20,
    "energy_first_mj": 5,
    "energy_last_mj": 8,
    "energy_falls": 1,
    "throttled": 2,  # the last one speaks for no time, and that nothing was to do is no reason
    "throttled_ns": 10 + 30,
    "throttle_last": POWER_CAP,
    "throttle_bits": POWER_CAP | NOTHING_TO_DO | SLOWDOWN,
    "sm_clock_mhz_known": 0,
}


@pytest.mark.parametrize("cut", [4, 1, 2, 3])
def test_a_piece_has_these_numbers_wherever_its_batches_were_cut(cut: int) -> None:
    """Of four samples, counted by hand."""
    numbers = pieces_of(*filter(None, (FEW[:cut], FEW[cut:]))).numbers
    assert {name: int(numbers[name][0]) for name in OF_FEW} == OF_FEW
    assert np.ma.getmaskarray(numbers["sm_clock_mhz_most"]).all()


def test_a_power_that_is_not_known_of_all_has_no_sums() -> None:
    """Nor have counter and reasons; least and most are those of the known ones."""
    gaps = {"power_mw": None, "energy_mj": None, "throttle_reasons": None}
    of_gaps = pieces_of([*FEW[:2], read(20, **gaps), *FEW[2:]]).numbers
    unknown = {name for name, column in of_gaps.items() if np.ma.getmaskarray(column).all()}
    summed = {
        name for name in OF_FEW if name.startswith(("power_t", "power_s", "power_f", "power_l", "energy_f"))
    }
    assert unknown >= {
        *summed,
        "energy_last_mj",
        "throttled",
        "throttled_ns",
        "throttle_last",
        "throttle_bits",
    }
    assert (of_gaps["power_mw_least"][0], of_gaps["power_mw_most"][0], of_gaps["power_mw_known"][0]) == (
        100,
        300,
        4,
    )


def test_a_power_of_which_time_goes_back_has_no_sums() -> None:
    """Two samples of one moment are enough: each time would count more than once."""
    numbers = pieces_of([*FEW[:2], read(10, 300), *FEW[2:]]).numbers
    assert numbers["disordered"][0] == 1 and np.ma.getmaskarray(numbers["power_trapezoids"]).all()


def test_a_moment_at_the_cut_of_two_batches_is_counted_twice_too() -> None:
    """Then the two parts are no piece that stands alone, and are read."""
    twice = [*FEW, read(60, 200), read(70, 200)]
    for batches in ((twice[:4], twice[4:]), (twice[:5], twice[5:])):
        pieces = pieces_of(*batches)
        every = pieces.one_by_one(slice(0, len(pieces.alone)), 0, 100, asked())
        assert every.all() and pieces.parts.all_rows == 6


def test_sums_that_would_not_fit_are_unknown() -> None:
    """A power that would fill 64 bits within its time, in one batch or only with the next."""
    large = [read(second * 10**9, 2**31) for second in range(3)]
    one, later = large[:2], [read(moment.at_ns, 2**31) for moment in large[2:]]
    assert not np.ma.getmaskarray(pieces_of(one).numbers["power_trapezoids"]).any()
    assert np.ma.getmaskarray(rows_of(large)["power_trapezoids"]).all()  # in the table already
    for batches in ((large,), (one, later)):
        assert np.ma.getmaskarray(pieces_of(*batches).numbers["power_trapezoids"]).all()


def many(samples: int, *, begin: int = 0) -> list[Reading]:
    """A hundred a second, of a power that goes up and down."""
    return [
        read((begin + row) * 10 * MS, 100_000 + (7919 * row) % 1000, energy_mj=row, throttle_reasons=POWER_CAP * (row % 5 == 0))
        for row in range(samples)
    ]  # fmt: skip


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_what_is_missing_in_one_part_is_missing_in_the_piece(place: int, cut: int) -> None:
    """Its sums are, the least and the largest of the other part are not."""
    lacking = {"power_mw": None, "energy_mj": None, "throttle_reasons": None, "temperature_c": None}
    samples = [reading._replace(**lacking) if row == place else reading for row, reading in enumerate(FEW)]
    whole, parted = pieces_of(samples).numbers, pieces_of(samples[:cut], samples[cut:]).numbers
    for name, column in whole.items():
        assert column.tolist() == parted[name].tolist(), name


@pytest.mark.parametrize("cuts", [(300,), (255, 257), (256,), (100, 200, 600)], ids=str)
def test_pieces_do_not_tell_where_a_catch_up_began(cuts: tuple[int, ...]) -> None:
    """Every number of seven hundred samples is the same in one batch as in several."""
    samples = many(700)
    edges = [0, *cuts, 700]
    whole = pieces_of(samples)
    parted = pieces_of(*(samples[first:end] for first, end in pairwise(edges)))
    assert whole.numbers["samples"].tolist() == [PIECE_SAMPLES, PIECE_SAMPLES, 700 - 2 * PIECE_SAMPLES]
    assert whole.numbers["piece"].tolist() == [0, 1, 2]
    for name, column in whole.numbers.items():
        assert column.tolist() == parted.numbers[name].tolist(), name
    assert whole.alone.all() and parted.alone.all()
    assert parted.parts.all_rows == whole.parts.all_rows == 700
    for some in (slice(0, 1), slice(1, 3)):
        needed = np.array([True, False])[: some.stop - some.start]
        assert parted.parts.rows_of(some, needed).tolist() == whole.parts.rows_of(some, needed).tolist()


def test_rows_of_a_piece_are_those_of_its_samples() -> None:
    """Those needed of some pieces, by their number among all samples of the experiment."""
    pieces = pieces_of(many(700))
    rows = pieces.parts.rows_of(slice(1, 3), np.array([False, True]))
    assert rows.tolist() == list(range(512, 700))


def test_samples_of_other_segments_stand_before() -> None:
    """Rows are numbered over the whole experiment, devices apart; what overlaps is one piece that does not stand alone."""
    before, ours = rows_of(many(300), device="GPU-1"), rows_of(many(300))
    again = rows_of(many(10, begin=100), segment="t")
    together = {name: np.ma.concatenate([before[name], ours[name], again[name]]) for name in ours}
    together = {
        name: np.asarray(column, object) if column.dtype == object else column
        for name, column in together.items()
    }
    found = load_pieces(together)
    assert set(found) == {(0, "GPU-1"), (0, "GPU-0")}
    pieces = found[0, "GPU-0"]
    assert pieces.alone.tolist() == [False, True]
    every = pieces.parts.rows_of(slice(0, 2), np.ones(2, bool))
    assert every.tolist() == list(range(300, 610))
    assert pieces.first_ns.tolist() == [0, 2560 * MS] and pieces.last_ns.tolist() == [2550 * MS, 2990 * MS]


@pytest.mark.parametrize(
    ("first_ms", "last_ms", "touched"),
    [
        (0, 2550, [0]),
        (0, 2559, [0]),
        (0, 2560, [0, 1]),
        (2550, 2555, [0]),
        (2551, 2559, []),
        (5110, 6990, [1, 2]),
        (7000, 8000, []),
    ],
)
def test_pieces_that_a_span_touches(first_ms: int, last_ms: int, touched: list[int]) -> None:
    """A sample at an end of the span is in it; pieces end at 2.55, 5.11 and 6.99 s."""
    found = pieces_of(many(700)).touching(first_ms * MS, last_ms * MS)
    assert list(range(3))[found] == touched


def needed(
    asked: Asked, samples: Sequence[Reading], *, first_ns: int = 0, last_ns: int = 10**10
) -> list[bool]:
    pieces = pieces_of(samples)
    return pieces.one_by_one(pieces.touching(first_ns, last_ns), first_ns, last_ns, asked).tolist()


def asked(*moments_s: float, **more: Any) -> Asked:
    return Asked(np.array(moments_s), 0, **more)


@pytest.mark.parametrize(
    ("moments_s", "pieces"),
    [
        ((), [False, False, False]),
        ((1.0,), [True, False, False]),
        ((2.55,), [False, False, False]),  # the end of a piece is seen anyhow
        ((2.555,), [False, False, False]),  # between two pieces nothing is left out
        ((2.56,), [False, False, False]),
        ((2.561, 6.989), [False, True, True]),
        ((6.991, 9.0), [False, False, False]),
    ],
)
def test_a_piece_with_a_moment_in_it_is_read(moments_s: tuple[float, ...], pieces: list[bool]) -> None:
    """Sample by sample."""
    assert needed(asked(*moments_s), many(700)) == pieces


def test_moments_are_on_their_own_clock() -> None:
    """That has an origin and a shift."""
    shifted = Asked(np.array([100.0]), 10**9, shift_sec=98.0)  # at 3 s of the samples
    assert needed(shifted, many(700)) == [False, True, False]


def test_a_piece_at_an_end_of_the_span_is_read() -> None:
    """Where a sample of it is outside; a span that ends with the piece needs none."""
    assert needed(asked(), many(700), last_ns=6990 * MS) == [False, False, False]
    assert needed(asked(), many(700), last_ns=6989 * MS) == [False, False, True]
    assert needed(asked(), many(700), first_ns=1) == [True, False, False]


@pytest.mark.parametrize(
    ("change", "is_read"),
    [
        ({"power_mw": None}, True),
        ({"energy_mj": None}, True),
        ({"throttle_reasons": None}, True),
        ({"temperature_c": None}, False),
    ],
    ids=str,
)
def test_a_piece_with_a_gap_is_read(change: dict[str, None], is_read: bool) -> None:
    """Where power, counter or reasons lack at one sample; where they lack at all, nobody can read more."""
    samples = many(700)
    of_gap = [*samples[:300], samples[300]._replace(**change), *samples[301:]]
    assert needed(asked(), of_gap) == [False, is_read, False]
    assert needed(asked(), [reading._replace(**change) for reading in samples]) == [False] * 3


def test_a_piece_in_which_time_stands_is_read() -> None:
    """Its sums say nothing."""
    samples = many(700)
    stands = [*samples[:300], samples[300]._replace(at_ns=samples[299].at_ns), *samples[301:]]
    assert needed(asked(), stands) == [False, True, False]


@pytest.mark.parametrize(("samples", "is_read"), [(1, True), (2, True), (3, False)])
def test_a_piece_of_two_samples_leaves_none_out(samples: int, is_read: bool) -> None:
    """Its ends are all of it."""
    assert needed(asked(), many(samples)) == [is_read]


def test_a_piece_with_a_long_gap_is_read() -> None:
    """Longer than is asked for; one that is as long is not."""
    assert needed(asked(longest_ns=10 * MS), many(700)) == [False] * 3
    assert needed(asked(longest_ns=10 * MS - 1), many(700)) == [True] * 3


def test_the_first_that_were_throttled_are_read() -> None:
    """So many of them as are asked for, after the first moment; every fifth sample is."""
    samples = many(700)
    assert needed(asked(0.0, throttled=51), samples) == [True, False, False]
    assert needed(asked(0.0, throttled=53), samples) == [True, True, False]
    assert needed(asked(0.0, throttled=0), samples) == [False] * 3
    assert needed(asked(2.555, throttled=1), samples) == [False, True, False]
    assert needed(asked(throttled=1), samples) == [False] * 3


def test_pieces_that_are_read_come_some_at_once() -> None:
    """About so many samples that are needed; of others only their two ends count."""
    pieces = pieces_of(many(700))
    wide = pieces._replace(parts=pieces.parts._replace(rows=pieces.parts.rows * (AT_ONCE // 128)))
    every, none = np.ones(3, bool), np.zeros(3, bool)
    assert [some for some, _ in wide.chunks(slice(0, 3), every)] == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert [some for some, _ in wide.chunks(slice(0, 3), none)] == [slice(0, 3)]
    parts = [(some, part.tolist()) for some, part in pieces.chunks(slice(1, 3), every[1:])]
    assert parts == [(slice(1, 3), [True, True])]
    assert list(pieces.ranges(2560 * MS, 6990 * MS)) == [(2560 * MS, 6990 * MS)]


def test_the_ends_of_a_piece_and_what_lies_between() -> None:
    """In watts, joules and seconds; what was left out stands at the later end."""
    at_ns, ends, left_out = ends_of(pieces_of(FEW), slice(0, 1), np.array([True]))
    assert at_ns.tolist() == [0, 60]
    assert ends["power_w"].tolist() == [0.1, 0.2] and ends["energy_j"].tolist() == [0.005, 0.008]
    assert ends["throttle_reasons"].tolist() == [POWER_CAP, POWER_CAP]
    assert left_out.samples.tolist() == [0, 2] and left_out.falls.tolist() == [0, 1]
    assert left_out.longest_sec.tolist() == [0.0, 30e-9] and left_out.throttled_sec.tolist() == [0.0, 40e-9]
    assert left_out.highest_w.tolist() == [0.0, 0.3] and left_out.throttle_bits.tolist() == [0, 13]
    # a power of 26 microwatt-seconds per thousand nanoseconds, halved as trapezoids are
    assert left_out.trapezoids_j.tolist() == [0.0, pytest.approx(13_000e-12)]
    assert left_out.half_steps_j.tolist() == [0.0, pytest.approx(2_000e-12)]


def test_what_columns_hold_over_pieces() -> None:
    """How many are known, their sum where it is counted, the least and the largest, in the units of the table."""
    pieces, shown = pieces_of(FEW), np.array([True])
    assert values_of(pieces, slice(0, 1), shown, "temperature_c") == (4, 3, 154.0, 50.0, 53.0)
    samples, known, summed, least, most = values_of(pieces, slice(0, 1), shown, "power_w")
    assert (samples, known, least, most) == (4, 4, 0.1, 0.3) and np.isnan(summed)
    assert values_of(pieces, slice(0, 1), shown, "sm_clock_mhz")[1:] == (
        0,
        pytest.approx(np.nan, nan_ok=True),
        None,
        None,
    )
    rows = rows_of(FEW)
    assert extremes_of(rows, "power_w") == (0.1, 0.3)
    assert extremes_of(rows, "sm_clock_mhz") is None


def test_what_is_read_whole() -> None:
    """Sixty-five thousand rows; requests weigh an eighth of their compressed bytes."""
    assert is_small(SMALL_ROWS) and not is_small(SMALL_ROWS + 1)
    assert weight_of("sampler", samples=10, applied_bytes=800) == 10
    assert weight_of("worker", samples=10, applied_bytes=800) == 110
