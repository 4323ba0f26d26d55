"""Results that do not belong together: refused when strict, else joined with a warning that says the same."""

from typing import Any

import pytest

from llem.results import AggregationError, RawProcessResult, aggregate_results
from tests.world import process

REFUSED: dict[str, tuple[list[RawProcessResult], dict[str, Any], str]] = {
    "duplicate index": ([process(0), process(0)], {}, "duplicate process indices 0"),
    "missing index": ([process(0), process(2)], {}, "missing process indices 1"),
    "fewer than expected": ([process(0)], {"expected_processes": 2}, "expected 2 processes, found 1"),
    "more than expected": (
        [process(0), process(1)],
        {"expected_processes": 1},
        "unexpected process indices 1",
    ),
    "no completion event": (
        [process(0), process(1)],
        {"completed": {0}},
        "no completion event of processes 1",
    ),
    "mixed backends": ([process(0), process(1, backend="vllm")], {}, "mixed backends: simulated, vllm"),
    "mixed experiments": ([process(0), process(1, experiment_id="other")], {}, "found other, run"),
    "another experiment": ([process(0, experiment_id="other")], {}, "found other, expected run"),
    "mixed schemas": ([process(0), process(1, schema_version="1.0")], {}, "mixed schema versions: 1.0, 2.0"),
}


@pytest.mark.parametrize(("results", "options", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_strict_refuses(results: list[RawProcessResult], options: dict[str, Any], text: str) -> None:
    """The error names what was found."""
    with pytest.raises(AggregationError, match=text):
        aggregate_results(results, "run", "hash", **options)


@pytest.mark.parametrize(("results", "options", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_not_strict_warns(results: list[RawProcessResult], options: dict[str, Any], text: str) -> None:
    """The warning says what the error would have said."""
    metadata = aggregate_results(results, "run", "hash", strict=False, **options).aggregation
    assert metadata is not None
    assert any(text in warning for warning in metadata.warnings)


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_to_join_is_always_refused(strict: bool) -> None:
    """An empty list has no result."""
    with pytest.raises(AggregationError, match="no process results"):
        aggregate_results([], "run", "hash", strict=strict)


def test_mixed_backends_can_be_allowed() -> None:
    """Then they are joined without a word, strictly or not."""
    results = [process(0), process(1, backend="vllm")]
    for strict in (True, False):
        joined = aggregate_results(results, "run", "hash", allow_mixed_backends=True, strict=strict)
        assert joined.aggregation is not None
        assert joined.aggregation.warnings == []


def test_an_incomplete_experiment_says_so() -> None:
    """Joined all the same, its status is not "completed"."""
    assert (
        aggregate_results([process(0)], "run", "hash", expected_processes=2, strict=False).status
        == "incomplete"
    )
    assert (
        aggregate_results([process(0)], "run", "hash", expected_processes=1, completed={0}).status
        == "completed"
    )


def test_only_what_can_stand_in_place_of_the_processes_is_taken() -> None:
    """A sum over processes cannot be given, nor can what is no field."""
    with pytest.raises(TypeError, match="unexpected keywords colour, total_energy_j"):
        aggregate_results([process(0)], "run", "hash", total_energy_j=1.0, colour="red")  # type: ignore[call-arg]
