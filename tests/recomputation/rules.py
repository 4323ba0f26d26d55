"""Which figures follow from which, by screen, row and line: written from the meaning of the figures, not from the code."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from tests.recomputation.printed import (
    Range,
    Rule,
    add,
    machine,
    product_off,
    quotient,
    seconds_between,
    sum_of,
)

JOULES_OF_A_KWH = Range.exactly(1000 * 60 * 60)
EXPERIMENT_ROW = (
    Rule("duration_sec", ("start_ns", "end_ns"), lambda start, end: _nanoseconds(end.minus(start))),
    sum_of("total_tokens", "input_tokens", "output_tokens"),
    Rule(
        "energy_adjusted_j",
        ("total_energy_j", "baseline_power_w", "duration_sec"),
        product_off,
    ),
    quotient("tokens_per_second", "total_tokens", "measured_sec"),
    quotient("output_tokens_per_second", "output_tokens", "measured_sec"),
    quotient("flops_per_second", "total_flops", "measured_sec"),
    quotient("avg_energy_per_token_j", "total_energy_j", "total_tokens"),
    quotient("energy_per_output_token_j", "total_energy_j", "output_tokens"),
    quotient("energy_per_request_j", "total_energy_j", "requests"),
    quotient("tokens_per_joule", "total_tokens", "total_energy_j"),
    Rule(
        "output_tokens_per_kwh",
        ("output_tokens", "total_energy_j"),
        lambda tokens, energy: tokens.over(energy).times(JOULES_OF_A_KWH),
        "total_energy_j",
    ),
    Rule(
        "kwh_per_million_output_tokens",
        ("total_energy_j", "output_tokens"),
        lambda energy, tokens: energy.over(tokens).over(JOULES_OF_A_KWH).times(Range.exactly(10**6)),
        "output_tokens",
    ),
    quotient("mean_power_w", "total_energy_j", "duration_sec"),
)
PROCESS_ROW = (
    sum_of("total_tokens", "input_tokens", "output_tokens"),
    quotient("tokens_per_second", "total_tokens", "inference_time_sec"),
    quotient("output_tokens_per_second", "output_tokens", "inference_time_sec"),
    Rule(
        "energy_adjusted_j",
        ("total_energy_j", "baseline_power_w", "inference_time_sec"),
        product_off,
    ),
)
WINDOW_ROW = (
    Rule("duration_sec", ("opened_ns", "closed_ns"), lambda start, end: _nanoseconds(end.minus(start))),
    quotient("mean_power_w", "energy_j", "duration_sec"),
    Rule(
        "energy_disagreement",
        ("counter_energy_j", "integrated_energy_j"),
        lambda counter, integrated: _apart(counter, integrated),
    ),
)
BATCH_ROW = (sum_of("energy_j", "prefill_energy_j", "decode_energy_j"),)
REQUEST_ROW = (
    Rule("e2e_ms", ("arrival_ns", "end_ns"), lambda start, end: _milliseconds(end.minus(start))),
    Rule("ttft_ms", ("arrival_ns", "first_token_ns"), lambda start, end: _milliseconds(end.minus(start))),
)
RESULTS_LINE = (
    *EXPERIMENT_ROW[1:2],
    Rule("energy_adjusted_j", ("energy_raw_j", "energy_baseline_w", "duration_sec"), product_off),
    quotient("tokens_per_second", "total_tokens", "measured_sec"),
    quotient("output_tokens_per_second", "output_tokens", "measured_sec"),
    quotient("flops_per_second", "total_flops", "measured_sec"),
    quotient("avg_energy_per_token_j", "energy_raw_j", "total_tokens"),
    quotient("energy_per_output_token_j", "energy_raw_j", "output_tokens"),
    quotient("tokens_per_joule", "total_tokens", "energy_raw_j"),
    quotient("mean_power_w", "energy_raw_j", "duration_sec"),
)
RAW_LINE = (
    sum_of(
        "inference_metrics_total_tokens",
        "inference_metrics_input_tokens",
        "inference_metrics_output_tokens",
    ),
    quotient(
        "inference_metrics_tokens_per_second",
        "inference_metrics_total_tokens",
        "inference_metrics_inference_time_sec",
    ),
    quotient(
        "inference_metrics_output_tokens_per_second",
        "inference_metrics_output_tokens",
        "inference_metrics_inference_time_sec",
    ),
    Rule(
        "inference_metrics_latency_per_token_ms",
        ("inference_metrics_inference_time_sec", "inference_metrics_output_tokens"),
        lambda seconds, tokens: seconds.times(Range.exactly(1000)).over(tokens),
        "inference_metrics_output_tokens",
    ),
    Rule("energy_metrics_duration_sec", ("inference_metrics_inference_time_sec",), lambda seconds: seconds),
    quotient("energy_metrics_gpu_power_w", "energy_metrics_gpu_energy_j", "energy_metrics_duration_sec"),
    quotient("energy_metrics_cpu_power_w", "energy_metrics_cpu_energy_j", "energy_metrics_duration_sec"),
    quotient(
        "energy_metrics_energy_per_token_j",
        "energy_metrics_total_energy_j",
        "inference_metrics_total_tokens",
    ),
    quotient(
        "compute_metrics_flops_per_token", "compute_metrics_flops_total", "inference_metrics_total_tokens"
    ),
    quotient(
        "compute_metrics_flops_per_second",
        "compute_metrics_flops_total",
        "inference_metrics_inference_time_sec",
    ),
    Rule("energy_breakdown_raw_j", ("energy_metrics_total_energy_j",), lambda energy: energy),
    Rule(
        "energy_breakdown_adjusted_j",
        ("energy_breakdown_raw_j", "energy_breakdown_baseline_power_w", "energy_metrics_duration_sec"),
        product_off,
    ),
    Rule("energy_metrics_total_energy_j", ("devices: energy_j",), lambda energy: energy),
    Rule("energy_breakdown_baseline_power_w", ("devices: baseline_power_w",), lambda power: power),
    Rule("energy_metrics_energy_uncertainty_j", ("devices: uncertainty_j",), lambda bound: bound),
    Rule("extended_metrics_memory_total_vram_mb", ("devices: memory_mb",), lambda memory: memory),
    Rule(
        "inference_metrics_time_to_first_token_ms",
        ("inference_metrics_latency_measurements_ttft_ms: mean",),
        lambda mean: mean,
    ),
    Rule("timestamps_duration_sec", ("start to end",), lambda seconds: seconds),
    Rule("inference_metrics_inference_time_sec", ("windows: length",), lambda seconds: seconds),
)
SCREEN = (
    Rule("energy above idle", ("energy", "baseline", "duration"), product_off),
    quotient("output tokens/s", "output tokens", "measured"),
    Rule(
        "all tokens/s",
        ("input tokens", "output tokens", "measured"),
        lambda taken, made, seconds: add(taken, made).over(seconds),
        "measured",
    ),
    Rule(
        "energy per token",
        ("energy", "input tokens", "output tokens"),
        lambda energy, taken, made: energy.over(add(taken, made)),
        "tokens",
    ),
    quotient("energy per output token", "energy", "output tokens"),
)


def _nanoseconds(apart: Range) -> Range:
    return apart.over(Range.exactly(10**9))


def _milliseconds(apart: Range) -> Range:
    return apart.over(Range.exactly(10**6))


def _apart(one: Range, other: Range) -> Range:
    """Their distance as a fraction of the larger; both are positive."""
    smaller, larger = sorted((one, other))
    return larger.minus(smaller).over(larger)


def raw_line(line: Mapping[str, str]) -> dict[str, str]:
    """A line of processes with the sums over what its cells hold as JSON, printed as exact decimals."""
    devices = {
        (device["host"], device["parent_uuid"] or device["uuid"]): device
        for device in json.loads(line["devices"], parse_float=str)
    }
    windows = json.loads(line["windows"]) or [[line["timestamps_start"], line["timestamps_end"]]]
    latencies = json.loads(line["inference_metrics_latency_measurements_ttft_ms"] or "[]", parse_float=str)
    return {
        **line,
        **{
            f"devices: {name}": exact_sum(device[name] for device in devices.values())
            for name in ("energy_j", "baseline_power_w", "uncertainty_j", "memory_mb")
        },
        "inference_metrics_latency_measurements_ttft_ms: mean": exact_mean(latencies),
        "start to end": exact(seconds_between(line["timestamps_start"], line["timestamps_end"]).low),
        "windows: length": exact(add(*(seconds_between(*window) for window in windows)).low),
    }


def exact(number: Fraction) -> str:
    """A number as a text that stands for nothing but itself."""
    return as_text(Range.exactly(number))


def as_text(figure: Range) -> str:
    """A range as a text that `read` takes back."""
    return f"{figure.low}..{figure.high}"


def exact_sum(texts: Iterable[Any]) -> str:
    """The sum of figures as printed; nothing where any is missing or there is none."""
    known = list(texts)
    if not known or None in known:
        return ""
    return as_text(add(*(read(str(text)) for text in known)))


def exact_mean(texts: Sequence[Any]) -> str:
    """Their mean."""
    whole = exact_sum(texts)
    return as_text(read(whole).over(Range.exactly(len(texts)))) if whole else ""


def flattened(prefix: str, part: Any) -> Iterator[tuple[str, str]]:
    """Figures of a JSON object under the names that a CSV file has for them; lists as JSON in one cell."""
    if isinstance(part, dict):
        for name, child in part.items():
            yield from flattened(f"{prefix}_{name}" if prefix else name, child)
    elif isinstance(part, list):
        yield prefix, json.dumps(part, default=str)
    elif part is not None:
        yield prefix, str(part)


def read(text: str) -> Range:
    """A figure for programs, or a range of our own."""
    if ".." in text:
        low, _, high = text.partition("..")
        return Range(Fraction(low), Fraction(high))
    return machine(text)
