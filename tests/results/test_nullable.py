"""Arithmetic in which not measured stays not measured."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from llem.results import aggregate_results
from llem.results.nullable import any_true, largest, mean, ratio, root_of_squares, total, weighted_mean
from tests.world import process

INF = math.inf
CASES: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
    (ratio, (1.0, 4.0), 0.25),
    (ratio, (0.0, 4.0), 0.0),
    (ratio, (1.0, 0.5), 2.0),
    (ratio, (1.0, 0.0), None),
    (ratio, (1.0, -1.0), None),
    (ratio, (None, 1.0), None),
    (ratio, (1.0, None), None),
    (total, ([0.1, 0.2],), 0.3),
    (total, ([0.1],), 0.1),
    (total, ([INF, 1.0],), INF),
    (total, ([1.0, None],), None),
    (total, ([None],), None),
    (total, ([],), None),
    (mean, ([0.1, 0.2, 0.3],), 0.2),
    (mean, ([7.0],), 7.0),
    (mean, ([1.0, None],), None),
    (mean, ([],), None),
    (root_of_squares, ([3.0, 4.0],), 5.0),
    (root_of_squares, ([0.1],), 0.1),
    (root_of_squares, ([None],), None),
    (root_of_squares, ([3.0, None],), None),
    (root_of_squares, ([],), None),
    (largest, ([1.0, None, 3.0, 2.0],), 3.0),
    (largest, ([None],), None),
    (any_true, ([False, None, True],), True),
    (any_true, ([False, None],), None),
    (any_true, ([False],), False),
    (any_true, ([],), None),
    (weighted_mean, ([(1.0, 1), (5.0, 3)],), 4.0),
    (weighted_mean, ([(2.0, None), (None, 5)],), 2.0),
    (weighted_mean, ([(2.0, None), (3.0, 5)],), None),
    (weighted_mean, ([(2.0, 0), (3.0, 0)],), None),
    (weighted_mean, ([],), None),
]


@pytest.mark.parametrize(
    ("function", "arguments", "answer"), CASES, ids=[f"{case[0].__name__}{case[1]}" for case in CASES]
)
def test_what_is_unknown_makes_unknown_what_follows(
    function: Callable[..., Any], arguments: tuple[Any, ...], answer: Any
) -> None:
    """And what is known is as anybody works it out from what is printed."""
    assert function(*arguments) == answer


def test_an_imported_result_counts_the_processes_that_it_lists() -> None:
    """One where it lists none."""
    joined = aggregate_results([process(0), process(1)], "run", "hash")
    alone = msgspec.structs.replace(joined, aggregation=None)
    assert (joined.num_processes, alone.num_processes) == (2, 2)
    assert msgspec.structs.replace(alone, process_results=[]).num_processes == 1
