"""The result of an experiment, from the results of its processes."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec
import numpy as np

from llem.plan import ValidityPlan
from llem.projections.clocks import Clocks
from llem.projections.derive_process import Measured, measure_process
from llem.projections.device_samples import Span
from llem.projections.facts import ExperimentFacts
from llem.results import (
    ExperimentResult,
    PowerSamples,
    SteadyState,
    aggregate_results,
    find_steady_state,
    judged,
)
from llem.results.experiment import Methodology
from llem.results.raw import Status
from llem.units import NS_PER_S
from llem_events import boot_id


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment's result and the processes it comes from; `result` is None where nothing was measured."""

    facts: ExperimentFacts
    clocks: Clocks
    status: str
    measured: Sequence[Measured]
    result: ExperimentResult | None

    @property
    def start_ns(self) -> int | None:
        """Wall clock when the first span began."""
        return min((self._wall(one)[0] for one in self.measured), default=None)

    @property
    def end_ns(self) -> int | None:
        """Wall clock when the last span ended."""
        return max((self._wall(one)[1] for one in self.measured), default=None)

    def _wall(self, one: Measured) -> Span:
        segment = one.process.segment
        first, last = one.spans[0][0], one.spans[-1][1]
        return self.clocks.wall_ns(segment, first), self.clocks.wall_ns(segment, last)


def derive_experiment(connection: duckdb.DuckDBPyConnection, facts: ExperimentFacts) -> Derived:
    """Everything that is known of an experiment, over the whole of its measurement windows."""
    clocks = Clocks(facts)
    found = [measure_process(connection, facts, process, clocks) for process in facts.processes]
    measured = [one for one in found if one is not None]
    status = experiment_status(facts)
    result = None
    if measured and status != "damaged":
        steady = steady_state(measured, clocks, thresholds(facts))
        result = join(facts, measured, status, steady=steady)
    return Derived(facts=facts, clocks=clocks, status=status, measured=measured, result=result)


def join(
    facts: ExperimentFacts,
    measured: Sequence[Measured],
    status: str,
    *,
    steady: SteadyState,
    methodology: Methodology = "total",
    warnings: Sequence[str] = (),
) -> ExperimentResult:
    """One result of several processes, judged."""
    started = facts.started
    texts = [warning.text for one in measured for warning in one.result.warnings]
    missing = [] if steady.reason is None else [steady.reason]
    joined = aggregate_results(
        [one.result for one in measured],
        facts.experiment_id,
        started.measurement_config_hash if started else "unknown",
        measurement_methodology=methodology,
        steady_state_window=steady.span_sec,
        measurement_warnings=[*texts, *missing, *warnings],
        expected_processes=started.expected_processes if started else None,
        completed={one.process_index for one in facts.processes if one.completed is not None},
        strict=False,
        allow_mixed_backends=True,
    )
    labelled = msgspec.structs.replace(
        joined, status=_result_status(status), labels=started.labels if started else {}
    )
    return labelled if status == "running" else judged(labelled, thresholds(facts))


def experiment_status(facts: ExperimentFacts) -> str:
    """running, completed, interrupted, incomplete, failed or damaged."""
    if facts.refused is not None:
        return "damaged"
    if facts.interrupted is not None:
        return "interrupted"
    if facts.completed is None and is_running(facts):
        return "running"
    expected = facts.started.expected_processes if facts.started else len(facts.processes)
    finished = {one.process_index for one in facts.processes if one.completed is not None}
    if finished >= set(range(max(expected, 1))):
        return "completed"
    if not finished and any(one.failed is not None for one in facts.processes):
        return "failed"
    return "incomplete"


def is_running(facts: ExperimentFacts) -> bool:
    """Whether the supervisor still lives, as far as this host can see."""
    supervisor = next((one for one in facts.segments if one.role == "supervisor"), None)
    if supervisor is None or supervisor.verdict == "clean" or supervisor.pid is None:
        return False
    here = (supervisor.host, supervisor.boot_id) == (platform.node(), boot_id())
    return here and Path(f"/proc/{supervisor.pid}").exists() if os.name == "posix" else False


def _result_status(status: str) -> Status:
    match status:
        case "completed" | "interrupted" | "failed":
            return status  # type: ignore[return-value]
        case _:
            return "incomplete"


def thresholds(facts: ExperimentFacts) -> ValidityPlan:
    """Those of the plan; what a plan of another llem says in other words is left at its default."""
    plan = facts.started.plan.get("validity", {}) if facts.started else {}
    known = {name: value for name, value in plan.items() if name in ValidityPlan.__struct_fields__}
    try:
        return msgspec.convert(known, ValidityPlan)
    except msgspec.ValidationError:
        return ValidityPlan()


def steady_state(measured: Sequence[Measured], clocks: Clocks, limits: ValidityPlan) -> SteadyState:
    """The experiment's steady state in seconds from its start, over the tokens and the power of all processes."""
    start_ns = min(clocks.wall_ns(one.process.segment, one.spans[0][0]) for one in measured)
    end_ns = max(clocks.wall_ns(one.process.segment, one.spans[-1][1]) for one in measured)
    tokens: list[float] = []
    power: dict[tuple[str, str], PowerSamples] = {}
    for one in measured:
        shift_ns = clocks.wall_ns(one.process.segment, 0) - start_ns
        times = [at for work in one.work for at in work.request.token_times_ns]
        tokens += ((np.array(times, np.int64) + shift_ns) / NS_PER_S).tolist()
        opened_sec = (one.spans[0][0] + shift_ns) / NS_PER_S
        for device, spanned in zip(one.result.devices, one.samples, strict=True):
            at_sec, power_w = spanned[0].power
            power.setdefault(device.key, PowerSamples(at_sec=at_sec + opened_sec, power_w=power_w))
    return find_steady_state(
        start_sec=0.0,
        end_sec=(end_ns - start_ns) / NS_PER_S,
        token_times_sec=tokens,
        power=list(power.values()),
        tolerance=limits.steady_state_tolerance,
        min_duration_sec=limits.steady_state_min_s,
    )
