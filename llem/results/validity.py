"""The verdict on a result: every reason why it should not be relied on, with value and threshold."""

import re
from collections.abc import Iterator

import msgspec

from llem.plan import ValidityPlan
from llem.results.energy import EnergySource
from llem.results.nullable import largest, ratio
from llem.results.serving import ServingMetrics

DEFAULT_THRESHOLDS = ValidityPlan()
_DIGITS = re.compile(r"(?<=:)\.(\d)(?=[f%]})")  # of a number in a reason's text
_MOST_DIGITS = 5  # more than a text has


class InvalidReason(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold that was passed; `code` is for programs, `text` for people."""

    code: str
    text: str
    value: float | None = None
    threshold: float | None = None


class MeasuredFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the verdict looks at; a fact that is None is unknown and counts against nothing but energy."""

    duration_sec: float  # of the shortest process
    complete: bool  # every process finished and none was interrupted
    ended_by: str | None = None  # what stopped it before its end
    energy_j: float | None = None
    energy_source: EnergySource | None = None
    energy_disagreement: float | None = None  # the largest of all devices
    energy_uncertainty: float | None = None  # the bound as a fraction of the energy
    # the least of all devices whose load may have kept step with their sensor
    seen_share: float | None = None
    samples: int | None = None  # the fewest of all devices
    max_sample_gap_sec: float | None = None
    throttled_fraction: float | None = None  # of the time, the largest of all devices
    temperature_drift_c: float | None = None  # the largest of all devices
    requests: int | None = None
    failed_requests: int | None = None
    serving: ServingMetrics | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a result can be relied on, by which thresholds, and every reason against it."""

    valid: bool
    invalid_reasons: list[InvalidReason] = []
    thresholds: ValidityPlan = DEFAULT_THRESHOLDS


def judge(facts: MeasuredFacts, thresholds: ValidityPlan = DEFAULT_THRESHOLDS) -> Verdict:
    """Compare the facts with every threshold."""
    reasons = [*_energy_reasons(facts, thresholds), *_run_reasons(facts, thresholds)]
    if facts.serving is not None:
        reasons += _serving_reasons(facts, facts.serving, thresholds)
    return Verdict(valid=not reasons, invalid_reasons=reasons, thresholds=thresholds)


def _energy_reasons(facts: MeasuredFacts, limits: ValidityPlan) -> Iterator[InvalidReason]:
    if facts.energy_j is None:
        yield InvalidReason(code="energy_not_measured", text="energy was not measured")
    if facts.energy_source == "estimated":
        yield InvalidReason(code="energy_estimated", text="energy is an estimate, not a measurement")
    yield from _above(
        "sources_disagree",
        "energy counter and integrated power differ by {value:.1%}, more than {threshold:.1%}",
        facts.energy_disagreement,
        limits.max_energy_disagreement,
    )
    yield from _above(
        "uncertainty_too_large",
        "the energy is known to {value:.1%} only, more than {threshold:.1%}",
        facts.energy_uncertainty,
        limits.max_uncertainty,
    )
    if facts.seen_share is not None:
        text = f"the power sensor sees {facts.seen_share:.0%} of the time, and the load may have kept step with it"
        yield InvalidReason(code="part_time_sensor", text=text, value=facts.seen_share)
    yield from _below(
        "too_few_samples",
        "1 sample, fewer than {threshold:.0f}"
        if facts.samples == 1
        else "{value:.0f} samples, fewer than {threshold:.0f}",
        facts.samples,
        limits.min_samples,
    )
    yield from _above(
        "sample_gap",
        "{value:.2f} s without a sample, more than {threshold:.2f} s",
        facts.max_sample_gap_sec,
        limits.max_sample_gap_s,
    )


def _run_reasons(facts: MeasuredFacts, limits: ValidityPlan) -> Iterator[InvalidReason]:
    if not facts.complete:
        why = f": {facts.ended_by}" if facts.ended_by else ""
        yield InvalidReason(code="incomplete", text=f"not every process ran to its end{why}")
    yield from _below(
        "too_short",
        "measured for {value:.2f} s, less than {threshold:.2f} s",
        facts.duration_sec,
        limits.min_duration_s,
    )
    yield from _above(
        "throttled",
        "throttled for {value:.1%} of the time, more than {threshold:.1%}",
        facts.throttled_fraction,
        limits.max_throttled,
    )
    yield from _above(
        "temperature_drift",
        "temperature moved by {value:.1f} C, more than {threshold:.1f} C",
        facts.temperature_drift_c,
        limits.max_temperature_drift_c,
    )
    yield from _above(
        "failed_requests",
        "{value:.1%} of the requests failed, more than {threshold:.1%}",
        ratio(facts.failed_requests, facts.requests),
        limits.max_failed_requests,
    )


def _serving_reasons(
    facts: MeasuredFacts, serving: ServingMetrics, limits: ValidityPlan
) -> Iterator[InvalidReason]:
    yield from _saturated(serving, limits)
    yield from _below(
        "rate_not_held",
        "requests were sent at {value:.1%} of the rate at which they were due, less than {threshold:.1%}",
        _rate_held(facts, serving),
        limits.min_rate_held,
    )
    # What a request that was cut off had brought is in the server's counters, and in no usage.
    by_counters = serving.counter_disagreement if facts.complete else None
    yield from _above(
        "counts_disagree",
        f"{_counts(serving)}: {{value:.1%}} apart, more than {{threshold:.1%}}",
        largest((serving.usage_disagreement, by_counters)),
        limits.max_count_disagreement,
    )
    yield from _above(
        "server_restarted",
        "the server's counters fell: it was restarted"
        if serving.restarts == 1
        else "the server's counters fell {value:.0f} times: it was restarted",
        serving.restarts,
        0,
    )
    yield from _above(
        "other_process_on_gpu",
        "1 process that is not the server's was on its GPUs"
        if serving.other_processes_on_gpus == 1
        else "{value:.0f} processes that are not the server's were on its GPUs",
        serving.other_processes_on_gpus,
        0,
    )


def _rate_held(facts: MeasuredFacts, serving: ServingMetrics) -> float | None:
    """None where all requests were in flight at once: they were due together, at no rate."""
    requests, most = facts.requests, serving.max_in_flight
    return None if requests is not None and most is not None and requests <= most else serving.rate_held


def _saturated(serving: ServingMetrics, limits: ValidityPlan) -> Iterator[InvalidReason]:
    """Latencies of a client that cannot keep up are its own; one reason for it is enough."""
    doubts = [
        *_above(
            "client_saturated",
            "the load process sent requests {value:.1f} ms late, more than {threshold:.1f} ms",
            serving.send_lag_p99_ms,
            limits.max_send_lag_ms,
        ),
        *_above(
            "client_saturated",
            "the load process used {value:.0%} of a core, more than {threshold:.0%}",
            serving.client_cpu,
            limits.max_client_cpu,
        ),
        *_above(
            "client_saturated",
            "the load process came {value:.1f} ms late to what it had planned, more than {threshold:.1f} ms",
            serving.client_lag_p99_ms,
            limits.max_client_lag_ms,
        ),
    ]
    yield from doubts[:1]


def _counts(serving: ServingMetrics) -> str:
    """Ours and the server's, as far as it has any."""
    theirs = (("its usage", serving.usage_output_tokens), ("its counters", serving.server_output_tokens))
    told = ", ".join(f"{count} by {whose}" for whose, count in theirs if count is not None)
    return f"{serving.streamed_output_tokens} output tokens came, {told}"


def _above(code: str, text: str, value: float | None, threshold: float) -> Iterator[InvalidReason]:
    if value is not None and value > threshold:
        yield _reason(code, text, value, threshold)


def _below(code: str, text: str, value: float | None, threshold: float) -> Iterator[InvalidReason]:
    if value is not None and value < threshold:
        yield _reason(code, text, value, threshold)


def _reason(code: str, text: str, value: float, threshold: float) -> InvalidReason:
    """With as many digits as tell the value from its threshold, where both are told."""
    finer = [text]
    while "{value" in text and len(finer) < _MOST_DIGITS:
        finer.append(_DIGITS.sub(lambda found: f".{int(found[1]) + 1}", finer[-1]))
    told = [each.format(value=value, threshold=threshold) for each in finer]
    same = [each.format(value=threshold, threshold=threshold) for each in finer]
    line = next((said for said, alike in zip(told, same, strict=True) if said != alike), told[0])
    return InvalidReason(code=code, text=line, value=value, threshold=threshold)
