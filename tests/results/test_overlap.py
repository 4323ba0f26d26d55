"""Spans together: their union, and whether they ran side by side."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llem.results.intervals import Interval, duration, union
from tests.world import wall_time

spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 10)).map(
        lambda span: (wall_time(span[0]), wall_time(sum(span)))
    )
)


@given(spans)
def test_the_union_lasts_as_long_as_anything_runs(several: list[Interval]) -> None:
    """Counted second by second, whatever lies inside, beside or across something else."""
    running = [
        second for second in range(40) if any(start <= wall_time(second) < end for start, end in several)
    ]
    assert duration(several) == timedelta(seconds=len(running))


@given(spans)
def test_spans_of_a_union_do_not_touch(several: list[Interval]) -> None:
    """They are in order, with time between them."""
    joined = union(several)
    assert all(before[1] < after[0] for before, after in pairwise(joined))
