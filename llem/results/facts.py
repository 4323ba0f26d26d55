"""From an experiment's result to the facts that its verdict looks at."""

from collections.abc import Iterable, Sequence

import msgspec

from llem.plan import ValidityPlan
from llem.results.experiment import ExperimentResult
from llem.results.intervals import duration
from llem.results.nullable import largest, ratio
from llem.results.process import RawProcessResult
from llem.results.validity import DEFAULT_THRESHOLDS, InvalidReason, MeasuredFacts, judge


def measured_facts(result: ExperimentResult) -> MeasuredFacts:
    """The worst of all processes, for every fact."""
    processes = result.process_results
    return MeasuredFacts(
        duration_sec=min((_measured_sec(process) for process in processes), default=result.duration_sec),
        complete=result.status == "completed",
        energy_j=result.total_energy_j,
        energy_source=result.energy_source,
        energy_disagreement=result.energy_disagreement,
        energy_uncertainty=ratio(result.energy_uncertainty_j, result.total_energy_j),
        samples=_fewest(process.samples for process in processes),
        max_sample_gap_sec=largest(process.max_sample_gap_sec for process in processes),
        throttled_fraction=largest(_throttled(process) for process in processes),
        temperature_drift_c=largest(process.temperature_drift_c for process in processes),
        requests=result.total_requests,
        failed_requests=result.failed_requests,
    )


def judged(
    result: ExperimentResult,
    thresholds: ValidityPlan = DEFAULT_THRESHOLDS,
    *,
    breaches: Sequence[InvalidReason] = (),
) -> ExperimentResult:
    """The same result with its verdict; `breaches` are reasons that its figures alone do not show."""
    verdict = judge(measured_facts(result), thresholds)
    reasons = [*breaches, *verdict.invalid_reasons]
    return msgspec.structs.replace(result, valid=not reasons, invalid_reasons=reasons)


def _measured_sec(process: RawProcessResult) -> float:
    return duration(process.spans).total_seconds()


def _throttled(process: RawProcessResult) -> float | None:
    throttling = process.thermal_throttle
    return ratio(throttling.throttle_duration_sec, _measured_sec(process)) if throttling else None


def _fewest(counts: Iterable[int | None]) -> int | None:
    return min((count for count in counts if count is not None), default=None)
