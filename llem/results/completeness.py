"""Whether every process of an experiment is there, once, and ran to its end, and whether their results may be joined at all."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import msgspec

from llem.errors import AggregationError
from llem.results.process import RawProcessResult


class CompletenessReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was expected of an experiment's processes and what was found; indices count from 0."""

    experiment_id: str
    expected_processes: int
    found_processes: int
    missing_indices: list[int] = []
    duplicate_indices: list[int] = []
    unexpected_indices: list[int] = []
    completed: dict[int, bool] = {}  # process index -> has a completion event
    is_complete: bool
    error_message: str | None = None


def validate_process_completeness(
    experiment_id: str,
    raw_results: Sequence[RawProcessResult],
    expected_processes: int,
    completed: Collection[int] | None = None,
) -> CompletenessReport:
    """Compare the process indices with 0 to N-1 and with the completion events; None takes those for granted."""
    counts = Counter(result.process_index for result in raw_results)
    wanted = range(expected_processes)
    report = CompletenessReport(
        experiment_id=experiment_id,
        expected_processes=expected_processes,
        found_processes=len(raw_results),
        missing_indices=[index for index in wanted if index not in counts],
        duplicate_indices=sorted(index for index, count in counts.items() if count > 1),
        unexpected_indices=sorted(index for index in counts if index not in wanted),
        completed={index: completed is None or index in completed for index in wanted},
        is_complete=True,
    )
    problems = list(_problems(report))
    return msgspec.structs.replace(
        report, is_complete=not problems, error_message="; ".join(problems) or None
    )


def _problems(report: CompletenessReport) -> Iterator[str]:
    if report.found_processes != report.expected_processes:
        yield f"expected {report.expected_processes} processes, found {report.found_processes}"
    unfinished = [index for index, done in report.completed.items() if not done]
    for what, indices in (
        ("missing process indices", report.missing_indices),
        ("duplicate process indices", report.duplicate_indices),
        ("unexpected process indices", report.unexpected_indices),
        ("no completion event of processes", unfinished),
    ):
        if indices:
            yield f"{what} {', '.join(map(str, indices))}"


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
