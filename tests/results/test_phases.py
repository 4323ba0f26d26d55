"""Prefill and decoding told apart by samples, or not at all."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results.nullable import total
from llem.results.phases import (
    Trace,
    allocate,
    batch_energies,
    energies_j,
    phase_energies,
    resolution_sec,
)


def two_level_trace(
    *, period_sec: float = 0.05, tick_sec: float | None = None, window_sec: float = 0.0
) -> Trace:
    """600 W for a prefill from 10 s to 12 s, then 300 W: the counter has 1200 J and then 300 J a second."""
    at_sec = np.arange(9.0, 20.0, period_sec)
    power_w = np.where((at_sec >= 10.0) & (at_sec < 12.0), 600.0, 300.0)
    true_j = 300.0 * at_sec + 300.0 * np.clip(at_sec - 10.0, 0.0, 2.0)
    counter = None if tick_sec is None else true_j
    return Trace(
        at_sec=at_sec,
        power_w=power_w,
        energy_j=counter,
        counter_tick_sec=tick_sec,
        power_window_sec=window_sec,
    )


@pytest.mark.parametrize("tick_sec", [None, 0.1])
def test_prefill_and_decode_are_told_apart(tick_sec: float | None) -> None:
    """2 s of prefill at 600 W and 4 s of decoding at 300 W are 1200 J each, by counter and by power."""
    (batch,) = batch_energies(
        [two_level_trace(tick_sec=tick_sec)], starts_sec=[10.0], first_tokens_sec=[12.0], ends_sec=[16.0]
    )
    source = "integrated" if tick_sec is None else "counter"
    assert batch.prefill.energy_j == pytest.approx(1200.0, rel=0.02)
    assert batch.decode.energy_j == pytest.approx(1200.0, rel=0.02)
    assert batch.whole.energy_j == pytest.approx(2400.0, rel=0.01)
    assert {batch.prefill.source, batch.decode.source, batch.whole.source} == {source}


@pytest.mark.parametrize(
    ("trace", "resolution_sec"),
    [
        (two_level_trace(), 0.05),
        (two_level_trace(tick_sec=0.1), 0.05),
        (two_level_trace(window_sec=1.0), 1.0),
        (two_level_trace(tick_sec=0.1, window_sec=1.0), 0.1),
    ],
    ids=["sampling period", "power where the tick is too slow", "averaging window", "tick"],
)
def test_a_phase_shorter_than_five_periods_is_not_measured(trace: Trace, resolution_sec: float) -> None:
    """Just above five periods of the finest sensor there is an energy, just below there is a reason."""
    lengths_sec = np.array([4.9, 5.1]) * resolution_sec
    short, long = phase_energies(trace, starts_sec=[13.0, 13.0], ends_sec=13.0 + lengths_sec)
    lasted_ms, least_ms = 4_900 * resolution_sec, 5_000 * short.resolution_sec
    said = f"it lasted {lasted_ms:.0f} ms, less than the {least_ms:.0f} ms that can be resolved"
    assert (short.energy_j, short.reason) == (None, said)
    assert long.energy_j == pytest.approx(300.0 * lengths_sec[1], rel=0.05)
    assert (long.resolution_sec, long.reason) == (pytest.approx(resolution_sec), None)


def test_a_phase_beyond_the_samples_is_not_measured() -> None:
    """Power is not assumed to go on where nothing was read."""
    before, after = phase_energies(two_level_trace(), starts_sec=[8.0, 18.0], ends_sec=[10.0, 21.0])
    assert before.energy_j is after.energy_j is None
    assert before.reason == after.reason == "the samples do not reach its edges"


def test_a_phase_from_the_first_to_the_last_sample_is_measured() -> None:
    """Their moments are within what the samples reach."""
    at_sec = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    trace = Trace(at_sec=at_sec, power_w=np.full(6, 300.0))
    (phase,) = phase_energies(trace, starts_sec=[0.0], ends_sec=[5.0])
    assert (phase.energy_j, phase.reason) == (1500.0, None)


def test_a_phase_with_a_gap_is_not_measured() -> None:
    """A second without samples makes the phases that it touches unknown, and no others."""
    whole = two_level_trace()
    missing = (whole.at_sec > 14.0) & (whole.at_sec < 15.0)
    trace = Trace(at_sec=whole.at_sec, power_w=np.where(missing, np.nan, whole.power_w))
    touched, beside = phase_energies(trace, starts_sec=[13.0, 15.5], ends_sec=[14.5, 16.5])
    assert (touched.energy_j, touched.reason) == (None, "samples are missing in it")
    assert beside.energy_j == pytest.approx(300.0)
    (batch,) = batch_energies([trace], starts_sec=[13.0], first_tokens_sec=[13.5], ends_sec=[17.0])
    assert batch.prefill.energy_j == pytest.approx(150.0)
    assert batch.decode.energy_j is batch.whole.energy_j is None


def test_a_batch_without_a_first_token_has_no_phases() -> None:
    """The whole is measured; where it was divided is unknown."""
    (batch,) = batch_energies(
        [two_level_trace()], starts_sec=[13.0], first_tokens_sec=[math.nan], ends_sec=[15.0]
    )
    assert batch.whole.energy_j == pytest.approx(600.0)
    assert batch.prefill.energy_j is batch.decode.energy_j is None
    assert batch.prefill.reason == "there was no first token"


def test_devices_are_summed_and_the_worst_of_them_decides() -> None:
    """Two devices give the sum; one that cannot resolve the phase makes it unknown."""
    fine, coarse = two_level_trace(), two_level_trace(period_sec=0.5)
    times = {"starts_sec": [12.5], "first_tokens_sec": [13.5], "ends_sec": [18.5]}
    (both,) = batch_energies([fine, fine], **times)
    assert both.prefill.energy_j == pytest.approx(600.0)
    (mixed,) = batch_energies([fine, coarse], **times)
    assert mixed.prefill.energy_j is None
    assert mixed.decode.energy_j == pytest.approx(3000.0)


def test_a_counter_that_falls_is_not_used() -> None:
    """After a reset the power has to do."""
    trace = two_level_trace(tick_sec=0.1)
    assert trace.energy_j is not None
    reset = Trace(
        at_sec=trace.at_sec,
        power_w=trace.power_w,
        energy_j=np.where(trace.at_sec > 14.0, 0.0, trace.energy_j),
        counter_tick_sec=0.1,
    )
    (phase,) = phase_energies(reset, starts_sec=[13.0], ends_sec=[15.0])
    assert (phase.energy_j, phase.source) == (pytest.approx(600.0), "integrated")


@pytest.mark.parametrize("missing", ["energy_j", "counter_tick_sec"])
def test_a_counter_without_its_tick_is_not_used(missing: str) -> None:
    """Nor is a tick without a counter: the power has to do."""
    trace = msgspec.structs.replace(two_level_trace(tick_sec=0.1), **{missing: None})
    (phase,) = phase_energies(trace, starts_sec=[13.0], ends_sec=[15.0])
    assert (phase.energy_j, phase.source) == (pytest.approx(600.0), "integrated")


def test_nothing_read_is_not_measured() -> None:
    """No sample at all: a reason for every phase."""
    empty = Trace(at_sec=np.array([]), power_w=np.array([]))
    (phase,) = phase_energies(empty, starts_sec=[1.0], ends_sec=[2.0])
    assert phase.energy_j is None and phase.reason


def test_without_devices_every_batch_has_its_reason() -> None:
    """A worker whose sampler never started has batches all the same."""
    found = batch_energies([], starts_sec=[1.0, 2.0], first_tokens_sec=[1.5, 2.5], ends_sec=[2.0, 3.0])
    assert [batch.decode.reason for batch in found] == ["no device was watched"] * 2


def test_a_share_is_that_of_the_tokens() -> None:
    """60 J over 10, 20 and 0 tokens: 20 J, 40 J and 0 J."""
    assert allocate(60.0, [10, 20, 0]) == pytest.approx([20.0, 40.0, 0.0])
    assert allocate(60.0, [1, 0]) == [60.0, 0.0]


def test_what_is_unknown_has_no_shares() -> None:
    """An unknown energy is not divided, nor is any energy over no tokens."""
    assert allocate(None, [1, 2]) == [None, None]
    assert allocate(5.0, [0, 0]) == [None, None]


@given(st.floats(0, 1e9), st.lists(st.integers(0, 100_000), min_size=1, max_size=64).filter(any))
def test_shares_sum_to_the_whole(energy_j: float, tokens: list[int]) -> None:
    """Whatever the tokens, nothing is lost and nothing added."""
    shares = allocate(energy_j, tokens)
    assert math.fsum(share for share in shares if share is not None) == pytest.approx(energy_j)


@given(st.lists(st.floats(10.0, 700.0), min_size=60, max_size=60), st.floats(1.0, 3.0), st.floats(0.6, 2.0))
def test_prefill_and_decode_sum_to_the_batch(
    power_w: list[float], first_sec: float, decode_sec: float
) -> None:
    """Whatever the power, the two phases are the whole batch."""
    trace = Trace(at_sec=np.arange(60) * 0.1, power_w=np.array(power_w))
    (batch,) = batch_energies(
        [trace], starts_sec=[0.3], first_tokens_sec=[first_sec], ends_sec=[first_sec + decode_sec]
    )
    assert batch.prefill.energy_j is not None and batch.decode.energy_j is not None
    assert batch.whole.energy_j == total([batch.prefill.energy_j, batch.decode.energy_j])


@pytest.mark.parametrize("made_up", ["estimated", "simulated"])
def test_what_no_sensor_read_says_so(made_up: str) -> None:
    """Of every phase that has an energy; one that has none has no source."""
    trace = msgspec.structs.replace(two_level_trace(), made_up=made_up)
    long, short = phase_energies(trace, starts_sec=[13.0, 13.0], ends_sec=[14.0, 13.01])
    assert (long.source, short.source) == (made_up, None)
    (batch,) = batch_energies([trace], starts_sec=[10.0], first_tokens_sec=[12.0], ends_sec=[16.0])
    assert {batch.prefill.source, batch.decode.source, batch.whole.source} == {made_up}


def test_some_of_a_phase_may_lie_in_gaps() -> None:
    """A fifth of it where so much is allowed; a little more is missing in it."""
    trace = two_level_trace()
    kept = ~((trace.at_sec > 13.0) & (trace.at_sec < 13.98))
    gap = msgspec.structs.replace(trace, at_sec=trace.at_sec[kept], power_w=trace.power_w[kept])
    for silent_share, known in ((0.22, True), (0.19, False), (0.0, False)):
        (found,) = phase_energies(gap, starts_sec=[12.5], ends_sec=[17.5], silent_share=silent_share)
        assert (found.energy_j is not None) is known
        assert found.reason == (None if known else "samples are missing in it")


def test_samples_three_periods_apart_are_no_gap() -> None:
    """Further apart they are."""
    trace = two_level_trace()
    for missed, known in ((2, True), (3, False)):
        kept = np.ones(len(trace.at_sec), bool)
        kept[90 : 90 + missed] = False
        thin = msgspec.structs.replace(trace, at_sec=trace.at_sec[kept] * 1.0, power_w=trace.power_w[kept])
        (found,) = phase_energies(thin, starts_sec=[12.5], ends_sec=[17.5])
        assert (found.energy_j is not None) is known


def test_edges_are_seen_as_well_as_the_better_way_shows_them() -> None:
    """By the counter's tick or the averaging window of the power; not at all where neither was read twice."""
    assert resolution_sec(two_level_trace(tick_sec=0.1, window_sec=1.0)) == 0.1
    assert resolution_sec(two_level_trace(tick_sec=2.0, window_sec=1.0)) == 1.0
    assert resolution_sec(two_level_trace()) == pytest.approx(0.05)
    trace = two_level_trace()
    for samples, known in ((1, False), (2, True)):
        few = msgspec.structs.replace(trace, at_sec=trace.at_sec[:samples], power_w=trace.power_w[:samples])
        assert (resolution_sec(few) is not None) is known


def test_devices_that_are_seen_differently_are_mixed() -> None:
    """The coarsest of them says how well the edges are seen."""
    devices = [two_level_trace(tick_sec=0.1), two_level_trace(window_sec=0.2)]
    (batch,) = batch_energies(devices, starts_sec=[10.0], first_tokens_sec=[12.0], ends_sec=[16.0])
    assert (batch.decode.source, batch.decode.resolution_sec) == ("mixed", 0.2)
    (alike,) = batch_energies([devices[0]] * 2, starts_sec=[10.0], first_tokens_sec=[12.0], ends_sec=[16.0])
    assert (alike.decode.source, alike.decode.resolution_sec) == ("counter", 0.1)


def test_no_phases_are_none() -> None:
    """Of devices that were read, of one that was not, and of none."""
    for devices in ([two_level_trace()], []):
        assert batch_energies(devices, starts_sec=[], first_tokens_sec=[], ends_sec=[]) == []
    assert phase_energies(two_level_trace(), starts_sec=[], ends_sec=[]) == []


@pytest.mark.parametrize(("readings", "resolution_s"), [(1, None), (2, 0.05)])
def test_a_counter_that_was_read_twice_shows_edges(readings: int, resolution_s: float | None) -> None:
    """Once is not enough; nor is power, which was not read at all."""
    trace = two_level_trace(tick_sec=0.01)
    few = msgspec.structs.replace(
        trace,
        at_sec=trace.at_sec[:readings],
        power_w=np.full(readings, np.nan),
        energy_j=trace.energy_j[:readings],
    )
    assert resolution_sec(few) == (None if resolution_s is None else pytest.approx(resolution_s))


@pytest.mark.parametrize("counted_j", [2.0e11, -3.0])
def test_a_counter_of_years_has_as_many_digits_as_a_new_one(counted_j: float) -> None:
    """Whatever it had counted before, or whichever way its driver begins, a batch's energy is the same to the last digit."""
    new, old = (
        msgspec.structs.replace(trace, energy_j=np.round(trace.energy_j + before_j, 3))
        for trace in [two_level_trace(tick_sec=0.1)]
        for before_j in (0.0, counted_j)
    )
    starts_sec, ends_sec = [10.0123, 13.4567], [12.0321, 17.7654]
    (first, second), (again, last) = (
        phase_energies(trace, starts_sec=starts_sec, ends_sec=ends_sec) for trace in (new, old)
    )
    assert (again.source, again.energy_j) == ("counter", first.energy_j)
    assert last.energy_j == second.energy_j


def test_very_many_phases_are_known_by_the_first_way_that_resolves_them() -> None:
    """As of few: by the counter, by the power where its tick is too slow, and not at all outside of the samples or where some are missing."""
    whole = two_level_trace(tick_sec=0.5)
    missing = (whole.at_sec > 18.0) & (whole.at_sec < 18.5)
    trace = msgspec.structs.replace(
        whole,
        power_w=np.where(missing, np.nan, whole.power_w),
        energy_j=np.where(missing, np.nan, whole.energy_j),
    )
    starts_sec, ends_sec = np.array([13.0, 13.0, 8.0, 14.0]), np.array([17.0, 14.0, 12.0, 19.0])
    known = [phase.energy_j for phase in phase_energies(trace, starts_sec=starts_sec, ends_sec=ends_sec)]
    assert known[2:] == [None, None]
    found_j = energies_j(trace, starts_sec=starts_sec, ends_sec=ends_sec)
    assert found_j.tolist() == pytest.approx([*known[:2], math.nan, math.nan], nan_ok=True)
    assert energies_j(trace, starts_sec=starts_sec[:0], ends_sec=ends_sec[:0]).tolist() == []
