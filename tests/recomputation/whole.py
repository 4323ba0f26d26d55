"""A whole result in JSON: every figure of the experiment from those of its processes, which stand in it too."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

from tests.recomputation.printed import Range, Rule, disagreements, machine, quotient, seconds_between
from tests.recomputation.rules import (
    EXPERIMENT_ROW,
    RAW_LINE,
    exact,
    exact_mean,
    exact_sum,
    flattened,
    raw_line,
    read,
)

Json = dict[str, Any]
TO_TWELVE_DIGITS = Fraction(1, 10**12)
SHOWN = (
    *EXPERIMENT_ROW[1:8],
    quotient("flops_per_output_token", "total_flops", "output_tokens"),
    quotient("flops_per_input_token", "total_flops", "input_tokens"),
)


def _same(target: str, other: str) -> Rule:
    return Rule(target, (other,), lambda figure: figure)


FROM_PROCESSES = (
    _same("input_tokens", "processes: input_tokens"),
    _same("output_tokens", "processes: output_tokens"),
    _same("total_inference_time_sec", "processes: inference_time_sec"),
    _same("avg_tokens_per_second", "processes: mean tokens_per_second"),
    _same("total_flops", "processes: flops_total"),
    _same("total_requests", "processes: requests"),
    _same("failed_requests", "processes: failed_requests"),
    _same("warmup_excluded_samples", "processes: warm-ups"),
    _same("measured_sec", "processes: union of windows"),
    _same("baseline_power_w", "devices: baseline_power_w"),
    _same("extended_metrics_memory_total_vram_mb", "devices: memory_mb"),
    _same("total_energy_j", "per device"),
    _same("energy_breakdown_raw_j", "total_energy_j"),
    _same("energy_breakdown_adjusted_j", "energy_adjusted_j"),
    _same("energy_breakdown_baseline_power_w", "baseline_power_w"),
    _same("latency_stats_ttft_mean_ms", "ttft_ms: mean"),
    _same("latency_stats_itl_mean_ms", "itl_full_ms: mean"),
    _same("latency_stats_itl_trimmed_mean_ms", "itl_trimmed_ms: mean"),
    _same("latency_stats_e2e_mean_ms", "e2e_ms: mean"),
    _same("extended_metrics_tpot_ms", "latency_stats_itl_trimmed_mean_ms"),
    _same("extended_metrics_request_latency_e2e_latency_p95_ms", "latency_stats_e2e_p95_ms"),
    Rule(
        "extended_metrics_token_efficiency_index",
        ("avg_tokens_per_second", "output_tokens", "total_energy_j"),
        lambda rate, tokens, energy: rate.times(tokens.over(energy)),
        "total_energy_j",
    ),
)
SERIES = {"ttft": "ttft_ms", "itl": "itl_full_ms", "itl_trimmed": "itl_trimmed_ms", "e2e": "e2e_ms"}


def whole_disagreements(result: Json) -> Iterator[str]:
    """Everything in a result that is not what follows from the rest of it."""
    where = f"--json of {result['experiment_id']}"
    figures = dict(flattened("", {name: part for name, part in result.items() if name != "process_results"}))
    processes = result["process_results"]
    figures |= {
        "input_tokens": figures.get("total_input_tokens", ""),
        "output_tokens": figures.get("total_output_tokens", ""),
        "duration_sec": exact(seconds_between(result["start_time"], result["end_time"]).low),
    }
    imported = not processes
    yield from disagreements(where, figures, SHOWN, read, complete=not imported)
    if imported:
        return
    figures |= _sums(processes) | _devices(result, processes) | _latencies(processes)
    yield from disagreements(where, figures, FROM_PROCESSES, read)
    yield from _percentiles(where, figures, processes)
    for process in processes:
        line = raw_line(defaultdict(str, flattened("", process)))
        yield from disagreements(f"{where}, process {process['process_index']}", line, RAW_LINE, read)


def _sums(processes: Sequence[Json]) -> dict[str, str]:
    inference = [process["inference_metrics"] for process in processes]
    rates = [each["tokens_per_second"] for each in inference]
    warmups = [process["warmup_result"] for process in processes if process["warmup_result"]]
    return {
        **{
            f"processes: {name}": exact_sum(each[name] for each in inference)
            for name in ("input_tokens", "output_tokens", "inference_time_sec")
        },
        **{
            f"processes: {name}": exact_sum(process[name] for process in processes)
            for name in ("requests", "failed_requests")
        },
        "processes: mean tokens_per_second": exact_mean(rates) if None not in rates else "",
        "processes: flops_total": exact_sum(each["compute_metrics"]["flops_total"] for each in processes),
        "processes: warm-ups": exact_sum(warmup["iterations_completed"] for warmup in warmups),
        "processes: union of windows": exact(_union(_windows(processes))),
    }


def _windows(processes: Sequence[Json]) -> list[tuple[datetime, datetime]]:
    spans = [
        span
        for process in processes
        for span in process["windows"] or [(process["timestamps"]["start"], process["timestamps"]["end"])]
    ]
    return sorted((datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in spans)


def _union(spans: Iterable[tuple[datetime, datetime]]) -> Fraction:
    """Seconds in any of the spans, counted microsecond by microsecond's edge."""
    covered, reached = Fraction(0), None
    for start, end in spans:
        begin = start if reached is None else max(start, reached)
        if end > begin:
            covered += seconds_between(begin.isoformat(), end.isoformat()).low
            reached = end
    return covered


def _devices(result: Json, processes: Sequence[Json]) -> dict[str, str]:
    """Sums over devices, each once: the mean of several processes' baselines, the memory that all report alike."""
    uses: defaultdict[tuple[str, str], list[Json]] = defaultdict(list)
    for process in processes:
        for device in process["devices"]:
            uses[device["host"], device["uuid"]].append(device)
    each_has_some = all(process["devices"] for process in processes)
    means = [_mean_or_none([device["baseline_power_w"] for device in used]) for used in uses.values()]
    memories = [used[0]["memory_mb"] for used in uses.values()]
    per_device = result["energy_per_device_j"] or []
    return {
        "devices: baseline_power_w": exact_sum(means) if each_has_some else "",
        "devices: memory_mb": exact_sum(memories) if each_has_some else "",
        "per device": exact_sum(per_device) if each_has_some else "",
    }


def _mean_or_none(texts: list[Any]) -> str | None:
    return exact_mean(texts) or None


def _latencies(processes: Sequence[Json]) -> dict[str, str]:
    return {f"{series}: mean": exact_mean(_values(processes, series)) for series in SERIES.values()}


def _values(processes: Sequence[Json], series: str) -> list[str]:
    measured = [process["inference_metrics"]["latency_measurements"] for process in processes]
    return [value for each in measured if each for value in each[series]]


def _percentiles(where: str, figures: dict[str, str], processes: Sequence[Json]) -> Iterator[str]:
    """Linear between the two nearest values, to twelve digits: numpy rounds on its way."""
    for name, series in SERIES.items():
        ordered = sorted(Fraction(value) for value in _values(processes, series))
        for label, share in (
            ("median", Fraction(1, 2)),
            ("p95", Fraction(95, 100)),
            ("p99", Fraction(99, 100)),
        ):
            shown = figures.get(f"latency_stats_{name}_{label}_ms", "")
            if bool(shown) is not bool(ordered):
                yield f"{where}: {name} {label} is {shown or 'NULL'} of {len(ordered)} values"
            elif ordered and not _close(shown, _percentile(ordered, share)):
                yield f"{where}: {name} {label} is {shown}, by its values {float(_percentile(ordered, share))!r}"


def _percentile(ordered: Sequence[Fraction], share: Fraction) -> Fraction:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _close(shown: str, expected: Fraction) -> bool:
    slack = abs(expected) * TO_TWELVE_DIGITS
    return machine(shown).meets(Range(expected - slack, expected + slack))
