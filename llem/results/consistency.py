"""Whether process results may be joined at all."""

from collections.abc import Collection, Iterator, Sequence

import msgspec

from llem.errors import AggregationError
from llem.results.completeness import validate_process_completeness
from llem.results.process import RawProcessResult


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a list of process results, as warnings."""

    problems: list[str]
    complete: bool


def check(
    results: Sequence[RawProcessResult],
    experiment_id: str,
    *,
    expected_processes: int | None,
    completed: Collection[int] | None,
    strict: bool,
    allow_mixed_backends: bool,
) -> Consistency:
    """All problems; when strict, the first one as AggregationError. Mixed backends are none where they are allowed."""
    missing = list(
        _incomplete(results, experiment_id, expected_processes=expected_processes, completed=completed)
    )
    problems = [
        *_mixed_experiments(results, experiment_id),
        *_mixed_schemas(results),
        *missing,
        *([] if allow_mixed_backends else _mixed_backends(results)),
    ]
    if strict and problems:
        raise AggregationError(problems[0], hint="strict=False joins what is there, with a warning")
    return Consistency(problems=problems, complete=not missing)


def _mixed_experiments(results: Sequence[RawProcessResult], experiment_id: str) -> Iterator[str]:
    names = sorted({result.experiment_id for result in results})
    if names != [experiment_id]:
        yield f"process results of other experiments: found {', '.join(names)}, expected {experiment_id}"


def _mixed_schemas(results: Sequence[RawProcessResult]) -> Iterator[str]:
    versions = sorted({result.schema_version for result in results})
    if len(versions) > 1:
        yield f"mixed schema versions: {', '.join(versions)}"


def _mixed_backends(results: Sequence[RawProcessResult]) -> Iterator[str]:
    backends = sorted({result.backend for result in results})
    if len(backends) > 1:
        yield f"mixed backends: {', '.join(backends)}"


def _incomplete(
    results: Sequence[RawProcessResult],
    experiment_id: str,
    *,
    expected_processes: int | None,
    completed: Collection[int] | None,
) -> Iterator[str]:
    expected = expected_processes
    if expected is None:
        expected = max(result.process_index for result in results) + 1
    report = validate_process_completeness(experiment_id, results, expected, completed)
    if report.error_message:
        yield f"incomplete experiment {experiment_id}: {report.error_message}"
