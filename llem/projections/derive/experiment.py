"""The result of an experiment, from the results of its processes: how it ended, where it stood still, and its verdict."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from llem.plan import ValidityPlan
from llem.projections.derive.clocks import Clocks, in_microseconds
from llem.projections.derive.conservation import breaches, imported_breaches
from llem.projections.derive.doubts import raised
from llem.projections.derive.history import ExperimentFacts
from llem.projections.derive.process import Measured, measure_process, thresholds, unreadable_thresholds
from llem.projections.derive.samples import DeviceSamples
from llem.projections.derive.source import Source, Span
from llem.results import (
    ExperimentResult,
    InvalidReason,
    LatencyStatistics,
    ResultWarning,
    SteadyState,
    aggregate_results,
    find_steady_state,
    judged,
)
from llem.results.experiment import Methodology
from llem.results.latency import joined
from llem.results.predecessor import imported
from llem.results.process import Status
from llem.results.steady_state import FloatArray, TokenTimes
from llem.units import NS_PER_S, seconds

ExperimentStatus = Literal["running", "completed", "interrupted", "incomplete", "failed", "damaged", "newer"]
RESULT_STATUS: dict[ExperimentStatus, Status] = {
    "completed": "completed",
    "interrupted": "interrupted",
    "failed": "failed",
}
Chosen = Mapping[str, Sequence[Span]]  # segment id of a worker -> spans of its monotonic clock


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment's result and the processes it comes from; `result` is None where nothing was measured."""

    facts: ExperimentFacts
    clocks: Clocks
    status: ExperimentStatus
    measured: Sequence[Measured] = ()
    steady: SteadyState = SteadyState()
    result: ExperimentResult | None = None

    def wall_span(self, measured: Measured) -> Span:
        """When a process began and ended, in nanoseconds since 1970: whole microseconds, as its result has them."""
        first, last = measured.spans[0][0], measured.spans[-1][1]
        segment = measured.process.segment
        return (
            in_microseconds(self.clocks.wall_ns(segment, first)),
            in_microseconds(self.clocks.wall_ns(segment, last)),
        )

    @property
    def start_ns(self) -> int:
        """Nanoseconds since 1970 when the first process began."""
        return min(self.wall_span(measured)[0] for measured in self.measured)

    @property
    def end_ns(self) -> int:
        """Nanoseconds since 1970 when the last process ended."""
        return max(self.wall_span(measured)[1] for measured in self.measured)


def derive_experiment(
    source: Source,
    facts: ExperimentFacts,
    *,
    chosen: Chosen | None = None,
    methodology: Methodology = "total",
) -> Derived:
    """Everything that is known of an experiment, over its measurement windows or spans chosen within them."""
    derived = Derived(facts=facts, clocks=Clocks(facts), status=experiment_status(facts))
    if facts.refused is not None:
        return derived
    if facts.imported is not None and not facts.processes:
        result = imported(facts.imported.original, experiment_id=facts.experiment_id)
        told = facts.started.labels if facts.started else {}
        result = msgspec.structs.replace(result, labels=facts.labels({**told, **result.labels}))
        return msgspec.structs.replace(derived, result=_believed(result))
    measured = _measure(source, derived, chosen)
    if not measured:
        return derived
    derived = msgspec.structs.replace(derived, measured=measured)
    steady = steady_state(
        derived.measured, derived.clocks, derived.start_ns, derived.end_ns, thresholds(facts.plan)
    )
    derived = msgspec.structs.replace(derived, steady=steady)
    return msgspec.structs.replace(derived, result=_join(derived, methodology, _reasons(source, derived)))


def _believed(result: ExperimentResult) -> ExperimentResult:
    """An imported result is not judged, for its thresholds are another's; but what it says against itself and what cannot be stay."""
    against = [*imported_breaches(result), *result.invalid_reasons]
    doubted = bool(against) or result.valid is False
    return msgspec.structs.replace(result, valid=False if doubted else None, invalid_reasons=against)


def _measure(source: Source, derived: Derived, chosen: Chosen | None) -> list[Measured]:
    measured = []
    for process in derived.facts.processes:
        spans = None if chosen is None else chosen.get(process.segment.segment_id or "", ())
        figures = measure_process(source, process, derived.clocks, plan=derived.facts.plan, chosen=spans)
        if figures is not None:
            measured.append(figures)
    return measured


def _reasons(source: Source, derived: Derived) -> list[InvalidReason]:
    """What stands against a result whatever its figures are."""
    unreadable = unreadable_thresholds(derived.facts.plan)
    against = breaches(source, derived.facts, derived.measured, derived.clocks)
    return [*against, *([unreadable] if unreadable else [])]


def _join(derived: Derived, methodology: Methodology, breaches: Sequence[InvalidReason]) -> ExperimentResult:
    """One result of several processes, judged unless it still grows."""
    facts, started = derived.facts, derived.facts.started
    result = aggregate_results(
        [process.result for process in derived.measured],
        facts.experiment_id,
        started.measurement_config_hash if started else "unknown",
        measurement_methodology=methodology,
        steady_state_window=derived.steady.span_sec,
        measurement_warnings=experiment_warnings(derived),
        expected_processes=started.expected_processes if started else None,
        completed={process.process_index for process in facts.processes if process.completed is not None},
        strict=False,
        latency_stats=_latencies(derived.measured),
    )
    labelled = msgspec.structs.replace(
        result,
        status=RESULT_STATUS.get(derived.status, "incomplete"),
        labels=facts.labels(started.labels if started else {}),
        power_limit_set_w=facts.setting("power_limit_w"),
        clocks_locked_mhz=facts.setting("lock_clocks_mhz"),
    )
    if derived.status == "running":
        return labelled
    ended_by = facts.interrupted.reason if facts.interrupted else None
    return judged(labelled, thresholds(facts.plan), breaches=breaches, ended_by=ended_by)


def experiment_warnings(derived: Derived) -> list[str]:
    """Doubts of all processes and of the log, each once."""
    of_processes = [doubt.text for process in derived.measured for doubt in process.result.warnings]
    return list(dict.fromkeys([*of_processes, *(doubt.text for doubt in log_warnings(derived))]))


def log_warnings(derived: Derived) -> list[ResultWarning]:
    """Doubts about the experiment as a whole."""
    salvaged = [
        ResultWarning(
            code="salvaged",
            text=f"{segment.missing_bytes} damaged bytes of {segment.file} were left out",
            value=segment.missing_bytes,
        )
        for segment in derived.facts.segments
        if segment.missing_bytes > 0
    ]
    unreadable = unreadable_thresholds(derived.facts.plan)
    replaced = [] if unreadable is None else [ResultWarning(code=unreadable.code, text=unreadable.text)]
    stepped = [
        ResultWarning(
            code="clock_stepped",
            text=f"the wall clock of {host} moved by {drift_ns / 1e9:.1f} s against its monotonic clock",
            value=drift_ns / 1e9,
        )
        for (host, _), drift_ns in derived.clocks.stepped.items()
    ]
    restless = (
        [ResultWarning(code="no_steady_state", text=derived.steady.reason)]
        if derived.steady.restless and derived.steady.reason is not None
        else []
    )
    return [*raised(derived.facts.warnings), *salvaged, *replaced, *stepped, *restless]


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """When the tokens of all processes came, in seconds of the experiment."""

    measured: Sequence[tuple[Measured, int]]  # and its clock's distance from the experiment's

    @property
    def count(self) -> int:
        return sum(seen.work.arrivals for seen, _ in self.measured)

    def until(self, edges_sec: FloatArray) -> FloatArray:
        counts = np.zeros_like(edges_sec)
        for seen, shift_ns in self.measured:
            for times_ns, tokens in seen.requests.arrivals():
                counts += TokenTimes(at_sec=(times_ns + shift_ns) / NS_PER_S, tokens=tokens).until(edges_sec)
        return counts


class _Power(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one device, in seconds of the experiment."""

    samples: DeviceSamples
    opened_sec: float

    @property
    def count(self) -> int:
        return self.samples.powered

    def until(self, edges_sec: FloatArray) -> FloatArray:
        return self.samples.power_curve(edges_sec, shift_sec=self.opened_sec)


def steady_state(
    measured: Sequence[Measured], clocks: Clocks, start_ns: int, end_ns: int, limits: ValidityPlan
) -> SteadyState:
    """The longest steady span, in seconds from `start_ns`, or why there is none. A shared device counts once."""
    shifted = [(seen, clocks.wall_ns(seen.process.segment, 0) - start_ns) for seen in measured]
    power: dict[tuple[str, str], _Power] = {}
    for seen, shift_ns in shifted:
        for device, spanned in zip(seen.devices, seen.samples, strict=True):
            opened_sec = seconds(seen.spans[0][0] + shift_ns)
            power.setdefault(device.key, _Power(samples=spanned[0], opened_sec=opened_sec))
    return find_steady_state(
        start_sec=0.0,
        end_sec=seconds(end_ns - start_ns),
        token_times_sec=_Tokens(measured=shifted),
        power=list(power.values()),
        tolerance=limits.steady_state_tolerance,
        min_duration_sec=limits.steady_state_min_s,
    )


def experiment_status(facts: ExperimentFacts) -> ExperimentStatus:
    """Complete is only an experiment all of whose processes have their completion marker."""
    if facts.refused is not None:
        return "newer" if facts.refused.verdict == "newer" else "damaged"
    if facts.imported is not None:
        return "completed"
    if facts.interrupted is not None:
        return "interrupted"
    if facts.completed is None and any(segment.being_written for segment in facts.segments):
        return "running"
    finished = {process.process_index for process in facts.processes if process.completed is not None}
    expected = facts.started.expected_processes if facts.started else len(facts.processes)
    if finished and finished >= set(range(expected)):  # bounded by check_ranges
        return "completed"
    if not finished and any(process.failed is not None for process in facts.processes):
        return "failed"
    return "incomplete"


def _latencies(measured: Sequence[Measured]) -> LatencyStatistics | None:
    """Over the values of all processes that have any; None where none has, or one alone says it itself."""
    parts = [seen.work.latencies for seen in measured if not seen.process.wraps_program]
    return joined(parts).statistics() if len(parts) > 1 else None
