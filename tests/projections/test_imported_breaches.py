"""What an imported result cannot be: less than nothing, or over before it began."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from llem.projections.derive.conservation import imported_breaches
from llem.results import ExperimentResult, aggregate_results
from tests.world import process

COUNTS = {
    "tokens": "total_tokens",
    "input tokens": "total_input_tokens",
    "output tokens": "total_output_tokens",
    "requests": "total_requests",
    "failed requests": "failed_requests",
}
FIGURES = {"energy": "total_energy_j", "inference time": "total_inference_time_sec", "FLOPs": "total_flops"}


def result(**changes: Any) -> ExperimentResult:
    """A result with some fields changed."""
    return msgspec.structs.replace(aggregate_results([process(requests=3)], "run", "hash"), **changes)


@pytest.mark.parametrize(("what", "field"), [*COUNTS.items(), *FIGURES.items()])
def test_less_than_nothing_is_named(what: str, field: str) -> None:
    """With how much it is; nothing and not measured are no breach."""
    (breach,) = imported_breaches(result(**{field: -1}))
    told = f"-1 {what}" if what in COUNTS else f"{what} of -1"
    assert (breach.code, breach.text) == ("not_conserved", told)
    assert imported_breaches(result(**{field: 0})) == []
    assert field == "total_inference_time_sec" or imported_breaches(result(**{field: None})) == []


def test_an_end_before_the_start_is_named() -> None:
    """By how much; no time at all is none."""
    start = result().start_time
    (breach,) = imported_breaches(result(end_time=start - timedelta(seconds=2.5)))
    assert breach.text == "an end 2.5 s before its start"
    assert imported_breaches(result(end_time=start)) == []
