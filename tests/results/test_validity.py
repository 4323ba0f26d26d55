"""The verdict: every threshold by itself, then all together."""

from typing import Any

import msgspec
import pytest

from llem.plan import ValidityPlan
from llem.results import (
    InvalidReason,
    MeasuredFacts,
    ThermalThrottleInfo,
    Verdict,
    aggregate_results,
    judge,
    judged,
    measured_facts,
)
from tests.world import device_energy, process

GOOD = MeasuredFacts(
    duration_sec=60.0,
    complete=True,
    energy_j=100.0,
    energy_source="counter",
    energy_disagreement=0.01,
    samples=600,
    max_sample_gap_sec=0.2,
    throttled_fraction=0.0,
    temperature_drift_c=2.0,
    requests=100,
    failed_requests=0,
)
BROKEN: dict[str, tuple[dict[str, Any], float | None, float | None]] = {
    "energy_not_measured": ({"energy_j": None, "energy_source": None}, None, None),
    "energy_estimated": ({"energy_source": "estimated"}, None, None),
    "sources_disagree": ({"energy_disagreement": 0.051}, 0.051, 0.05),
    "part_time_sensor": ({"seen_share": 0.25}, 0.25, None),
    "too_few_samples": ({"samples": 19}, 19, 20),
    "sample_gap": ({"max_sample_gap_sec": 1.1}, 1.1, 1.0),
    "incomplete": ({"complete": False}, None, None),
    "too_short": ({"duration_sec": 9.9}, 9.9, 10.0),
    "throttled": ({"throttled_fraction": 0.1}, 0.1, 0.0),
    "temperature_drift": ({"temperature_drift_c": 10.1}, 10.1, 10.0),
    "failed_requests": ({"failed_requests": 6}, 0.06, 0.05),
}


def test_a_good_run_is_valid() -> None:
    """Nothing against it, and the thresholds are kept beside the verdict."""
    assert judge(GOOD) == Verdict(valid=True, invalid_reasons=[], thresholds=ValidityPlan())


@pytest.mark.parametrize("code", BROKEN)
def test_each_threshold_is_a_reason(code: str) -> None:
    """One passed threshold makes one reason with its value and its threshold."""
    change, value, threshold = BROKEN[code]
    verdict = judge(msgspec.structs.replace(GOOD, **change))
    assert not verdict.valid
    assert [(reason.code, reason.value, reason.threshold) for reason in verdict.invalid_reasons] == [
        (code, value, threshold)
    ]


def test_an_energy_that_is_hardly_known_is_a_reason() -> None:
    """A bound over the plan's fraction of the energy; at it there is none."""
    plan = ValidityPlan(max_uncertainty=0.1)
    wide = judge(msgspec.structs.replace(GOOD, energy_uncertainty=0.11), plan)
    assert [reason.code for reason in wide.invalid_reasons] == ["uncertainty_too_large"]
    assert judge(msgspec.structs.replace(GOOD, energy_uncertainty=0.1), plan).valid


def test_a_reason_never_says_that_a_figure_is_less_than_itself() -> None:
    """It has the digits that tell it from its threshold."""
    texts = [
        reason.text for reason in judge(msgspec.structs.replace(GOOD, duration_sec=9.9996)).invalid_reasons
    ]
    assert texts == ["measured for 9.9996 s, less than 10.0000 s"]


def test_one_sample_is_told_in_the_singular() -> None:
    """And two in the plural."""
    for samples, text in [(1, "1 sample, fewer than 20"), (2, "2 samples, fewer than 20")]:
        (reason,) = judge(msgspec.structs.replace(GOOD, samples=samples)).invalid_reasons
        assert reason.text == text


def test_reasons_that_figures_do_not_show_come_first() -> None:
    """Either kind makes the result invalid."""
    result = aggregate_results([process(span=(0, 5))], "run", "hash")
    breach = InvalidReason(code="leak", text="something else ran")
    told = judged(result, breaches=[breach]).invalid_reasons
    assert [reason.code for reason in told] == ["leak", "too_short"]
    assert judged(result, ValidityPlan(min_duration_s=1.0), breaches=[breach]).valid is False


def test_every_reason_is_told() -> None:
    """All passed thresholds are listed, not the first alone."""
    changes = {name: value for change, _, _ in BROKEN.values() for name, value in change.items()}
    codes = [reason.code for reason in judge(msgspec.structs.replace(GOOD, **changes)).invalid_reasons]
    assert sorted(codes) == sorted(BROKEN)


def test_values_at_a_threshold_are_within_it() -> None:
    """Exactly 10 s, 20 samples, 5 % and 10 C are allowed."""
    edge = msgspec.structs.replace(
        GOOD,
        duration_sec=10.0,
        samples=20,
        max_sample_gap_sec=1.0,
        energy_disagreement=0.05,
        temperature_drift_c=10.0,
        failed_requests=5,
    )
    assert judge(edge).valid


def test_unknown_facts_count_against_nothing_but_energy() -> None:
    """A machine without temperature or throttle reasons can still give a valid result."""
    known = MeasuredFacts(duration_sec=60.0, complete=True, energy_j=0.0, energy_source="counter")
    assert judge(known).valid


def test_thresholds_are_the_plans() -> None:
    """Another plan gives another verdict, and the text names both numbers."""
    reasons = judge(GOOD, ValidityPlan(min_duration_s=120.0)).invalid_reasons
    assert [reason.text for reason in reasons] == ["measured for 60.00 s, less than 120.00 s"]


def test_facts_are_the_worst_of_all_processes() -> None:
    """Shortest time, fewest samples, longest gap, largest drift, throttling and disagreement."""
    calm = process(0, span=(0, 20), samples=200, max_sample_gap_sec=0.1, temperature_drift_c=1.0, requests=9)
    rough = process(
        1,
        span=(0, 10),
        samples=90,
        max_sample_gap_sec=0.4,
        temperature_drift_c=3.0,
        requests=1,
        thermal_throttle=ThermalThrottleInfo(detected=True, throttle_duration_sec=1.0),
        devices=[device_energy("GPU-1", 25.0, disagreement=0.02)],
    )
    assert measured_facts(aggregate_results([calm, rough], "run", "hash")) == MeasuredFacts(
        duration_sec=10.0,
        complete=True,
        energy_j=50.0,
        energy_source="counter",
        energy_disagreement=0.02,
        samples=90,
        max_sample_gap_sec=0.4,
        throttled_fraction=0.1,
        temperature_drift_c=3.0,
        requests=10,
    )


def test_a_judged_result_carries_its_verdict() -> None:
    """Not judged is None; then it is valid, or invalid with the reasons."""
    result = aggregate_results([process(span=(0, 5))], "run", "hash")
    assert result.valid is None
    assert judged(result).valid is False
    assert [reason.code for reason in judged(result).invalid_reasons] == ["too_short"]
    assert judged(result, ValidityPlan(min_duration_s=1.0)).valid is True


@pytest.mark.parametrize(
    ("limit_w", "reasons", "fraction"),
    [
        (350.0, {"power": True, "thermal": False, "hw_power": False}, 0.0),
        (350.0, {"power": True, "thermal": True, "hw_power": False}, 0.1),
        (350.0, {"power": True, "thermal": False, "hw_power": True}, 0.1),
        (None, {"power": True, "thermal": False, "hw_power": False}, 0.1),
    ],
)
def test_keeping_to_the_limit_that_was_set_is_no_fault(
    limit_w: float | None, reasons: dict[str, bool], fraction: float
) -> None:
    """A power cap counts where the plan has set no limit, and every other reason always does."""
    throttle = ThermalThrottleInfo(detected=True, throttle_duration_sec=1.0, **reasons)
    result = aggregate_results([process(thermal_throttle=throttle)], "run", "hash")
    limited = msgspec.structs.replace(result, power_limit_set_w=limit_w)
    assert measured_facts(limited).throttled_fraction == fraction
