"""Several loads on one server: `--rate 4,8,16` is an experiment for each rate, and then a line for each."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llem.errors import PlanError
from llem.plan import Plan
from llem.results import ExperimentResult

MAX_LOADS = 100
COLUMNS = ("output tokens/s", "J/output token", "ttft p99 ms", "tpot p99 ms", "verdict")


def loads_of(*, rate: str | None, concurrency: str | None) -> list[dict[str, object]]:
    """The keys of the plan that each load sets, one load of none where neither is given. Raises PlanError."""
    if rate is not None and concurrency is not None:
        raise PlanError("--rate and --concurrency", found="both", expected="one of them")
    if rate is not None:
        return [{"load.rate": each} for each in _numbers("--rate", rate, float)]
    if concurrency is not None:
        return [{"load.concurrency": each} for each in _numbers("--concurrency", concurrency, int)]
    return [{}]


def _numbers(option: str, written: str, kind: type[float] | type[int]) -> list[float]:
    words = [word.strip() for word in written.split(",")]
    try:
        numbers = [kind(word) for word in words]
    except ValueError:
        what = "numbers" if kind is float else "whole numbers"
        raise PlanError(option, found=repr(written), expected=f"{what}, separated by commas") from None
    if len(numbers) > MAX_LOADS:
        raise PlanError(option, found=f"{len(numbers)} of them", expected=f"at most {MAX_LOADS}")
    return numbers


def labelled(plan: Plan, load: Mapping[str, object]) -> Plan:
    """The plan with the load as a label, so that its experiments are told apart."""
    labels = plan.labels | {
        key: f"{number:g}" for key, number in load.items() if isinstance(number, int | float)
    }
    return msgspec.structs.replace(plan, labels=labels)


def curve(
    results: Sequence[ExperimentResult | None], loads: Sequence[Mapping[str, object]]
) -> list[tuple[Any, ...]]:
    """A row for each load: what it was, what came of it, what a token cost, and whether to believe it."""
    rows = [(next(iter(load.values())), *_of(result)) for load, result in zip(loads, results, strict=True)]
    return [tuple(float(f"{cell:.6g}") if isinstance(cell, float) else cell for cell in row) for row in rows]


def _of(result: ExperimentResult | None) -> tuple[Any, ...]:
    if result is None:
        return (None, None, None, None, "not measured")
    latencies = result.latency_stats
    return (
        result.output_tokens_per_second,
        result.energy_per_output_token_j,
        latencies.ttft_p99_ms if latencies else None,
        latencies.tpot_vllm_p99_ms if latencies else None,
        "valid" if result.valid else "not valid",
    )


def write_curve(results: Sequence[ExperimentResult | None], loads: Sequence[Mapping[str, object]]) -> None:
    """The rows on stderr: stdout has the results."""
    # only now, when nothing is measured any more
    table = importlib.import_module("llem.cli.table")
    what = next(iter(loads[0])).rpartition(".")[2]
    table.write_table(sys.stderr, [what, *COLUMNS], curve(results, loads), instead="llem runs")
