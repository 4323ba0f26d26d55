"""What an imported result cannot be: less than nothing, or over before it began."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.projections.derive.conservation import imported_breaches
from llem.projections.derive.experiment import _believed
from llem.results import ExperimentResult, InvalidReason, aggregate_results
from llem_events.events import ResultImported
from tests.projections.in_memory import derive, segment, usual
from tests.world import EXPERIMENT, process, supervisor_events

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


REASON = InvalidReason(code="imported", text="it says so")


@pytest.mark.parametrize(
    ("changes", "valid", "codes"),
    [
        ({}, None, []),
        ({"valid": True}, None, []),
        ({"valid": False}, False, []),
        ({"valid": None, "invalid_reasons": [REASON]}, False, ["imported"]),
        (
            {"valid": True, "total_tokens": -1, "invalid_reasons": [REASON]},
            False,
            ["not_conserved", "imported"],
        ),
    ],
)
def test_an_imported_result_is_not_judged(
    changes: dict[str, Any], valid: bool | None, codes: list[str]
) -> None:
    """But what it says against itself, and what cannot be, stay."""
    believed = _believed(result(valid=None, invalid_reasons=[]) if not changes else result(**changes))
    assert (believed.valid, [reason.code for reason in believed.invalid_reasons]) == (valid, codes)


def test_an_imported_file_alone_is_the_result() -> None:
    """Its labels stand beside those of the import; where there are processes too, they are what was measured."""
    original = (Path(__file__).parents[1] / "export" / "predecessor_result.json").read_bytes()
    event = ResultImported(
        format="llenergymeasure-2.0", file_name="r.json", file_sha256="", original=original
    )
    started, ended = supervisor_events(0, labels={"series": "a", "imported_id": "mine"})
    said = [started, (1.0, event), ended]
    derived = derive((segment("import"), said))
    assert derived.result is not None and not derived.measured
    assert derived.result.total_tokens == 12_345 and derived.result.experiment_id == EXPERIMENT
    assert derived.result.labels["series"] == "a" and derived.result.labels["imported_id"] != "mine"
    beside = usual(supervisor=said)
    assert beside.result is not None and beside.result.total_tokens == 120
    alone = derive((segment("import"), said[1:2]))
    assert alone.result is not None and "series" not in alone.result.labels
