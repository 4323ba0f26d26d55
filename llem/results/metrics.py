"""What one process measured of time, tokens and computation."""

import math
from datetime import datetime
from typing import Self

import msgspec

from llem.results.latency import LatencyMeasurements
from llem.results.nullable import ratio


class Timestamps(msgspec.Struct, frozen=True, kw_only=True):
    """When it ran, on the wall clock (UTC)."""

    start: datetime
    end: datetime
    duration_sec: float

    @classmethod
    def from_times(cls, start: datetime, end: datetime) -> Self:
        """A span and its length."""
        return cls(start=start, end=end, duration_sec=(end - start).total_seconds())


class InferenceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and speed of one process; padding and tokens after end-of-sequence are not tokens.

    Counts are None where tokens are not measured, as of a wrapped program.
    """

    total_tokens: int | None  # input and output
    input_tokens: int | None
    output_tokens: int | None
    inference_time_sec: float
    tokens_per_second: float | None = None  # total tokens over inference time
    output_tokens_per_second: float | None = None  # output tokens over inference time
    latency_per_token_ms: float | None = None  # inference time over output tokens
    time_to_first_token_ms: float | None = None  # mean over requests
    latency_measurements: LatencyMeasurements | None = None

    @classmethod
    def from_counts(
        cls,
        *,
        input_tokens: int,
        output_tokens: int,
        inference_time_sec: float,
        latency_measurements: LatencyMeasurements | None = None,
    ) -> Self:
        """Token counts and what follows from them; a rate is None where the time is zero."""
        ttft_ms = latency_measurements.ttft_ms if latency_measurements else []
        return cls(
            total_tokens=input_tokens + output_tokens,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            inference_time_sec=inference_time_sec,
            tokens_per_second=ratio(input_tokens + output_tokens, inference_time_sec),
            output_tokens_per_second=ratio(output_tokens, inference_time_sec),
            latency_per_token_ms=ratio(1000 * inference_time_sec, output_tokens),
            time_to_first_token_ms=ratio(math.fsum(ttft_ms), len(ttft_ms)),
            latency_measurements=latency_measurements,
        )


class ComputeMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """FLOPs and memory of one process; the method says how the FLOPs were counted."""

    flops_total: float | None = None
    flops_per_token: float | None = None
    flops_per_second: float | None = None
    peak_memory_mb: float | None = None
    model_memory_mb: float | None = None
    flops_method: str | None = None
    flops_confidence: str | None = None
    compute_precision: str | None = None

    @classmethod
    def from_flops(
        cls,
        flops_total: float | None,
        *,
        total_tokens: int | None,
        inference_time_sec: float,
        peak_memory_mb: float | None = None,
        model_memory_mb: float | None = None,
        flops_method: str | None = None,
        flops_confidence: str | None = None,
        compute_precision: str | None = None,
    ) -> Self:
        """A count of FLOPs and what follows from it."""
        return cls(
            flops_total=flops_total,
            flops_per_token=ratio(flops_total, total_tokens),
            flops_per_second=ratio(flops_total, inference_time_sec),
            peak_memory_mb=peak_memory_mb,
            model_memory_mb=model_memory_mb,
            flops_method=flops_method,
            flops_confidence=flops_confidence,
            compute_precision=compute_precision,
        )


class ThermalThrottleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a device slowed itself down; a flag is None where the driver does not tell."""

    detected: bool | None = None
    thermal: bool | None = None
    power: bool | None = None
    sw_thermal: bool | None = None
    hw_thermal: bool | None = None
    hw_power: bool | None = None
    throttle_duration_sec: float | None = None  # elapsed time between samples that report it
    max_temperature_c: float | None = None
    throttle_timestamps: list[float] = []  # seconds from the process's, or experiment's, start


class WarmupResult(msgspec.Struct, frozen=True, kw_only=True):
    """Whether latency settled before the measurement window opened."""

    converged: bool
    final_cv: float | None = None
    iterations_completed: int
    target_cv: float | None = None
    max_prompts: int | None = None
    latencies_ms: list[float] = []
    reason: str | None = None  # what ended the warm-up
    cooldown_sec: float | None = None
    temperature_start_c: float | None = None
    temperature_end_c: float | None = None
