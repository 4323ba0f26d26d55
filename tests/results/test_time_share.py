"""Energy of requests that run at the same time: by what each got while it was used, and all of it belongs to somebody or to nobody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results.time_share import (
    Floats,
    Weights,
    divide,
    evenly_in_spans,
    spread_over_spans,
    tokens_in_spans,
)

EDGES_SEC: Floats = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
NOBODY = Weights(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def _floats(*values: float) -> Floats:
    return np.array(values, np.float64)


def _spread(rows: list[int], start: list[float], end: list[float], amounts: list[float]) -> Weights:
    return spread_over_spans(EDGES_SEC, np.array(rows), _floats(*start), _floats(*end), _floats(*amounts))


def test_two_requests_share_a_span_by_their_tokens() -> None:
    """Three tokens of four take three quarters; a span without anybody is idle."""
    work = tokens_in_spans(EDGES_SEC, np.array([0, 0, 0, 1]), _floats(0.1, 0.2, 0.9, 0.5), np.ones(4))
    shares = divide(_floats(8, 5, 0, 1), work=work, presence=NOBODY, requests=2)
    assert shares.energy_j.tolist() == [6.0, 2.0] and shares.idle_j == 6.0


def test_a_prompt_has_its_weight_while_it_is_computed() -> None:
    """Two seconds of a prompt of eight tokens against a token a second of another."""
    prompt = _spread([0], [0.0], [2.0], [8.0])
    tokens = tokens_in_spans(EDGES_SEC, np.array([1, 1]), _floats(0.5, 1.5), np.ones(2))
    shares = divide(_floats(10, 10, 0, 0), work=prompt.joined(tokens), presence=NOBODY, requests=2)
    assert shares.energy_j.tolist() == [16.0, 4.0]


def test_requests_that_wait_share_alike_by_their_time() -> None:
    """Where nobody gets anything, whoever is there longer takes more."""
    presence = _spread([0, 1], [0.0, 0.5], [1.0, 1.0], [1.0, 0.5])
    shares = divide(_floats(9, 3, 0, 0), work=NOBODY, presence=presence, requests=2)
    assert shares.energy_j.tolist() == [6.0, 3.0] and shares.idle_j == 3.0


def test_who_gets_a_little_takes_all_of_a_span() -> None:
    """However little it is: those that only wait share where nobody gets anything."""
    work = _spread([0], [0.5], [1.5], [1.0])
    presence = _spread([1], [0.0], [3.0], [3.0])
    shares = divide(_floats(8, 4, 2, 1), work=work, presence=presence, requests=2)
    assert shares.energy_j.tolist() == [12.0, 2.0] and shares.idle_j == 1.0


def test_what_lies_outside_is_left_out_and_the_end_is_inside() -> None:
    """A token at the last edge belongs to the last span; those before the first and after the last to none."""
    work = tokens_in_spans(EDGES_SEC, np.array([0, 0, 0]), _floats(-0.1, 4.0, 4.1), np.ones(3))
    assert (work.spans.tolist(), work.amounts.tolist()) == ([3], [1.0])
    before = _spread([0], [-2.0], [2.0], [4.0])
    assert before.amounts.sum() == pytest.approx(2.0)
    for start, end, inside in (
        (4.0, 5.0, 0.0),
        (4.5, 5.0, 0.0),
        (3.0, 5.0, 2.0),
        (4.0, 4.0, 4.0),
        (4.5, 4.5, 0.0),
    ):
        after = _spread([0], [start], [end], [4.0])
        assert after.amounts.sum() == pytest.approx(inside) and set(after.spans.tolist()) == {3}
    early = _spread([0, 1], [-1.0, -1.0], [-0.5, -1.0], [4.0, 4.0])
    assert early.amounts.tolist() == [0.0, 0.0]


def test_what_takes_no_time_is_all_at_its_moment() -> None:
    """A first token that comes as the request is sent still has its prompt's weight; both ends are inside."""
    for moment, span in ((1.5, 1), (0.0, 0), (4.0, 3)):
        found = _spread([0], [moment], [moment], [7.0])
        assert (found.amounts.sum(), found.spans.tolist()) == (7.0, [span])


_MOMENTS = st.floats(0, 4, allow_nan=False)


@given(
    st.lists(st.tuples(_MOMENTS, _MOMENTS, st.integers(0, 50), st.integers(0, 5)), max_size=8),
    st.lists(st.floats(0, 1e6), min_size=4, max_size=4),
)
def test_shares_and_idle_are_the_whole(
    requests: list[tuple[float, float, int, int]], energy_j: list[float]
) -> None:
    """Whatever runs when, nothing is lost and nothing is counted twice."""
    rows = np.arange(len(requests), dtype=np.int64)
    start = _floats(*(min(first, last) for first, last, _, _ in requests))
    end = _floats(*(max(first, last) for first, last, _, _ in requests))
    prompts = _floats(*(float(prompt) for _, _, prompt, _ in requests))
    tokens = np.array([count for *_, count in requests], np.int64)
    work = spread_over_spans(EDGES_SEC, rows, start, (start + end) / 2, prompts).joined(
        tokens_in_spans(EDGES_SEC, np.repeat(rows, tokens), np.repeat(end, tokens), np.ones(tokens.sum()))
    )
    presence = spread_over_spans(EDGES_SEC, rows, start, end, end - start)
    shares = divide(_floats(*energy_j), work=work, presence=presence, requests=len(requests))
    assert shares.energy_j.sum() + shares.idle_j == pytest.approx(sum(energy_j), rel=1e-9, abs=1e-9)
    assert (shares.energy_j >= 0).all() and shares.idle_j >= 0


@pytest.mark.parametrize(
    ("start_s", "end_s", "parts"),
    [
        (0.0, 10.0, {0: 0.5, 1: 0.3, 2: 0.2}),
        (4.0, 10.0, {0: 1 / 6, 1: 0.5, 2: 1 / 3}),
        (5.0, 8.0, {1: 1.0}),
        (9.0, 11.0, {2: 0.5}),
        (-5.0, 5.0, {0: 0.5}),
    ],
)
def test_an_amount_is_spread_evenly(start_s: float, end_s: float, parts: dict[int, float]) -> None:
    """Over three spans of 5, 3 and 2 s; what lies outside is nobody's."""
    edges_s = np.array([0.0, 5.0, 8.0, 10.0])
    found = spread_over_spans(edges_s, np.array([7]), np.array([start_s]), np.array([end_s]), np.array([1.0]))
    amounts = np.bincount(found.spans, found.amounts, 3)
    assert {span: amount for span, amount in enumerate(amounts.tolist()) if amount} == pytest.approx(parts)
    assert set(found.rows.tolist()) == {7}
    together = evenly_in_spans(edges_s, np.array([start_s]), np.array([end_s]), np.array([1.0]))
    assert together == pytest.approx(amounts)


@pytest.mark.parametrize("seed", range(20))
def test_amounts_by_how_fast_they_go_on_are_the_sum_of_their_parts(seed: int) -> None:
    """In every span, wherever they begin and end, also at its edges and all at once."""
    drawn = np.random.default_rng(seed)
    edges_sec = np.unique(drawn.integers(0, 40, 12)) / 4
    start_sec = drawn.integers(-8, 48, 50) / 4
    end_sec = start_sec + drawn.integers(-1, 12, 50) * drawn.choice([0.0, 0.25, 1e-6], 50)
    amounts = drawn.integers(0, 100, 50).astype(np.float64)
    parts = spread_over_spans(edges_sec, np.zeros(50, np.int64), start_sec, end_sec, amounts)
    expected = np.bincount(parts.spans, parts.amounts, len(edges_sec) - 1)
    assert evenly_in_spans(edges_sec, start_sec, end_sec, amounts) == pytest.approx(expected, abs=1e-9)
