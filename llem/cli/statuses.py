"""The exit statuses of every command, and which of them a measurement ends with."""

from typing import TYPE_CHECKING

from llem.errors import INTERNAL_STATUS

if TYPE_CHECKING:
    from llem.measure.supervisor import Outcome
    from llem.results import ExperimentResult

DONE = 0
FAILED = 1  # something was done, but not all went well; under --strict also a result that is not valid
WRONG = 2  # wrong input, or not possible here
DAMAGED = 3  # damaged data was left out or refused
INTERNAL = INTERNAL_STATUS
INTERRUPTED = 130  # by any signal


def of_measurement(
    outcome: "Outcome", result: "ExperimentResult | None", *, strict: bool, shown: bool
) -> int:
    """A wrapped program's own status where all else went well."""
    if outcome.interrupted:
        return INTERRUPTED
    worst = max((failure.exit_status for failure in outcome.failures), default=DONE)
    if worst == INTERNAL or (worst != DONE and not outcome.has_measured):
        return worst
    if not outcome.is_complete or not shown or result is None or _has_failed(result, strict=strict):
        return FAILED
    return outcome.program_status or DONE


def _has_failed(result: "ExperimentResult", *, strict: bool) -> bool:
    return bool(result.failed_requests) or (strict and result.valid is not True)
