"""Every process is there, once, and ran to its end."""

from llem.results import validate_process_completeness
from tests.world import process


def test_validate_process_completeness_complete() -> None:
    """All indices from 0 with their completion events are complete."""
    report = validate_process_completeness("run", [process(1), process(0)], 2, {0, 1})
    assert report.is_complete
    assert report.error_message is None
    assert (report.expected_processes, report.found_processes) == (2, 2)
    assert report.completed == {0: True, 1: True}


def test_validate_process_completeness_missing() -> None:
    """A missing index and a missing completion event are both named."""
    report = validate_process_completeness("run", [process(0), process(2)], 3, {0})
    assert not report.is_complete
    assert report.missing_indices == [1]
    assert report.completed == {0: True, 1: False, 2: False}
    assert report.error_message == (
        "expected 3 processes, found 2; missing process indices 1; no completion event of processes 1, 2"
    )


def test_validate_process_completeness_duplicate() -> None:
    """An index that comes twice is named once, even where the count is right."""
    report = validate_process_completeness("run", [process(0), process(0)], 2, {0, 1})
    assert not report.is_complete
    assert (report.duplicate_indices, report.missing_indices) == ([0], [1])


def test_an_index_beyond_the_expected_ones_is_unexpected() -> None:
    """Indices are 0 to N-1."""
    report = validate_process_completeness("run", [process(1)], 1, {0})
    assert (report.unexpected_indices, report.missing_indices) == ([1], [0])
