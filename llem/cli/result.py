"""One result on the screen: each figure with its unit, where it comes from, and what is doubtful about it."""

from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.text import Text

from llem.cli.console import folded, on_one_line
from llem.cli.run_facts import RunFacts
from llem.cli.table import console_for, draw, plain_table
from llem.results import ExperimentResult, InvalidReason

NOT_MEASURED = "not measured"
Row = tuple[str, float | int | str | None, str]


def write_result(out: TextIO, result: ExperimentResult, facts: RunFacts) -> None:
    """The figures of one experiment."""
    console = console_for(out)
    console.print(Text(folded(on_one_line(_title(result, facts)), out), style="bold"), soft_wrap=True)
    table = plain_table()
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for name, value, unit in _rows(result):
        table.add_row(Text(name), Text(_text(value)), Text(unit if value is not None else ""))
    draw(console, table)
    for line in _remarks(result, facts):
        console.print(Text(folded(on_one_line(line), out)), soft_wrap=True)


def _title(result: ExperimentResult, facts: RunFacts) -> str:
    """The id, the name in the plan, what was measured, and how it ended."""
    weights = " with random weights" if result.weights == "random" else ""
    measured = [facts.command or f"{result.model_name or result.backend}{weights}"]
    if facts.exit_status is not None:
        measured.append(f"exit status {facts.exit_status}")
    if result.backend not in (result.model_name, "command"):
        measured.append(result.backend)
    name = f"{facts.name}: " if facts.name else ""
    return f"{result.experiment_id}  {name}{', '.join([*measured, result.status])}"


def _rows(result: ExperimentResult) -> Iterator[Row]:
    processes = result.aggregation.num_processes if result.aggregation else None
    yield "processes", processes, ""
    yield "duration", result.duration_sec, "s"
    if result.measured_sec not in (None, result.duration_sec):
        yield "measured", result.measured_sec, "s, without the pauses"
    yield from _work(result)
    yield from _energy(result)
    yield from _latencies(result)
    yield from _throttling(result)
    share = result.model_flops_utilisation
    yield "FLOPs", result.total_flops, "FLOP" if share is None else f"FLOP, {share:.1%} of the peak"


def _throttling(result: ExperimentResult) -> Iterator[Row]:
    """Only where a device has slowed itself down: for how long, and by which of NVML's reasons."""
    throttle = result.thermal_throttle
    if throttle is None or not throttle.detected:
        return
    reasons = {
        "software thermal slowdown": throttle.sw_thermal,
        "hardware thermal slowdown": throttle.hw_thermal,
        "hardware power brake": throttle.hw_power,
        "software power cap": throttle.power and not throttle.hw_power,
    }
    named = ", ".join(reason for reason, is_so in reasons.items() if is_so) or "hardware slowdown"
    yield "throttled", throttle.throttle_duration_sec, f"s, by {named}"


def _work(result: ExperimentResult) -> Iterator[Row]:
    if result.total_requests is not None:
        failed = result.failed_requests
        yield "requests", result.total_requests, "" if failed is None else f"({failed:,} failed)"
    yield "input tokens", result.total_input_tokens, ""
    yield "output tokens", result.total_output_tokens, ""
    yield "output tokens/s", result.output_tokens_per_second, ""
    yield "all tokens/s", result.tokens_per_second, "input and output"


def _energy(result: ExperimentResult) -> Iterator[Row]:
    source = f", {result.energy_source}" if result.energy_source else ""
    yield "energy", result.total_energy_j, f"J{source}"
    yield (
        "energy above idle",
        result.energy_adjusted_j,
        f"J{source}, baseline {_text(result.baseline_power_w)} W{_age(result)}",
    )
    yield "energy per token", result.avg_energy_per_token_j, f"J{source}"
    yield "energy per output token", result.energy_per_output_token_j, f"J{source}"


def _age(result: ExperimentResult) -> str:
    breakdown = result.energy_breakdown
    reused = breakdown is not None and breakdown.baseline_cache_age_sec is not None
    return (
        f" of an earlier run, {_text(breakdown.baseline_cache_age_sec)} s old" if breakdown and reused else ""
    )


def _latencies(result: ExperimentResult) -> Iterator[Row]:
    latency = result.latency_stats
    if latency is None:
        return
    for name, median, p95, p99 in (
        ("time to first token", latency.ttft_median_ms, latency.ttft_p95_ms, latency.ttft_p99_ms),
        ("inter-token latency", latency.itl_median_ms, latency.itl_p95_ms, latency.itl_p99_ms),
        ("end to end", latency.e2e_median_ms, latency.e2e_p95_ms, latency.e2e_p99_ms),
    ):
        yield name, median, f"ms median, {_text(p95)} p95, {_text(p99)} p99"


def _remarks(result: ExperimentResult, facts: RunFacts) -> Iterator[str]:
    verdict = {True: "valid", False: "not valid", None: "not judged"}[result.valid]
    yield f"verdict: {verdict}"
    joining = result.aggregation.warnings if result.aggregation else []
    warnings = list(dict.fromkeys([*result.measurement_warnings, *joining]))
    for reason in result.invalid_reasons:
        details = _details(reason, result, warnings)
        warnings = [warning for warning in warnings if warning not in details]
        yield "  " + ": ".join([reason.text, *details.values()])
    if facts.failures:
        yield facts.failures
    for warning in warnings:
        yield f"warning: {warning}"


def _details(reason: InvalidReason, result: ExperimentResult, warnings: Sequence[str]) -> dict[str, str]:
    """Warnings that say no more than the reason does, and which processes it means."""
    said = f"incomplete experiment {result.experiment_id}: "
    if reason.code != "incomplete":
        return {}
    return {warning: warning.removeprefix(said) for warning in warnings if warning.startswith(said)}


def _text(value: float | int | str | None) -> str:
    """Six digits of a figure, and all before the point: enough to recompute one from the others beside it."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, float):
        rounded = f"{value:,.6g}"
        return f"{value:,.0f}" if "e" in rounded and 1e5 < abs(value) < 1e9 else rounded
    return f"{value:,}" if isinstance(value, int) else value
