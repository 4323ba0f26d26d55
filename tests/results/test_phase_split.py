"""What a token of a prompt and a further one cost, estimated by regression over spans of a run: the truth lies in the interval, or a reason says why not."""

import numpy as np
import pytest

from llem.results.phase_split import Estimate, PhaseSplit, joined, split_phases

PROMPT_J, DECODE_J, IDLE_W = 0.02, 0.5, 60.0


def run(seed: int, *, spans: int = 60, noise_j: float = 5.0, course: float = 0.0) -> PhaseSplit:
    """A served minute whose costs are known, with noise that has to do with that of the span before by `course`."""
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.poisson(8, spans) * 512.0, rng.poisson(300, spans).astype(np.float64)
    noise = rng.normal(0, noise_j, spans)
    for place in range(1, spans):
        noise[place] += course * noise[place - 1]
    return split(
        prompts, outputs, IDLE_W + PROMPT_J * prompts + DECODE_J * outputs + noise, idle_power_w=IDLE_W
    )


def split(
    prompts: np.ndarray, outputs: np.ndarray, energy_j: np.ndarray, *, idle_power_w: float = 0.0
) -> PhaseSplit:
    """Of spans of a second."""
    tokens = np.stack([prompts, outputs], axis=1)[np.newaxis]
    return split_phases(
        energy_j=energy_j, span_sec=np.ones(len(energy_j)), tokens=tokens, idle_power_w=idle_power_w
    )


def holds(estimate: Estimate | None, truth_j: float) -> bool:
    """Whether the interval of a token's cost has it."""
    assert estimate is not None
    per_token_j, within_j = estimate.per_token_j, estimate.per_token_within_j
    assert per_token_j is not None and within_j is not None
    return abs(per_token_j - truth_j) <= within_j


@pytest.mark.parametrize(("course", "least"), [(0.0, 0.92), (0.6, 0.86)])
def test_the_truth_lies_in_the_interval_as_often_as_it_says(course: float, least: float) -> None:
    """In 95 of 100 runs, and nearly as often where what disturbs one span disturbs the next too."""
    splits = [run(seed, course=course) for seed in range(300)]
    for phase, truth_j in (("prefill", PROMPT_J), ("decode", DECODE_J)):
        share = np.mean([holds(getattr(each, phase), truth_j) for each in splits])
        assert least <= share <= 0.99


def test_a_run_without_noise_is_split_exactly() -> None:
    """Both phases and the idle power add up to all of the energy, and tokens explain it."""
    exact = run(1, noise_j=0.0)
    assert exact.prefill is not None and exact.decode is not None
    assert exact.prefill.per_token_j == pytest.approx(PROMPT_J)
    assert exact.decode.per_token_j == pytest.approx(DECODE_J)
    assert exact.prefill.within_j == pytest.approx(0, abs=1e-6) and exact.r2 == pytest.approx(1)


def test_costs_and_their_intervals_stay_what_they_were() -> None:
    """Of twenty blocks of spans, one of which is left out at a time."""
    found = run(1)
    assert found.prefill is not None and found.decode is not None
    told = [(each.energy_j, each.within_j, each.tokens) for each in (found.prefill, found.decode)]
    assert told[0] == pytest.approx((5266.770871, 348.669175, 245248.0), rel=1e-6)
    assert told[1] == pytest.approx((8519.892798, 409.172688, 17883.0), rel=1e-6)
    assert found.r2 == pytest.approx(0.95527724, rel=1e-6)
    assert run(1, spans=19).reason == "19 spans of time are fewer than 20"
    assert run(1, spans=20).reason is None


def test_what_tokens_do_not_explain_is_told() -> None:
    """The share of the squares that a fit by numpy leaves."""
    rng = np.random.default_rng(4)
    tokens = rng.poisson(50, (60, 2)).astype(np.float64)
    energy_j = tokens @ np.array([PROMPT_J, DECODE_J]) + rng.normal(0, 2, 60)
    found = split(tokens[:, 0], tokens[:, 1], energy_j)
    _, (left,), *_ = np.linalg.lstsq(tokens, energy_j, rcond=None)
    assert found.r2 == pytest.approx(1 - left / ((energy_j - energy_j.mean()) ** 2).sum())
    assert found.r2 < 0.95


def test_energy_that_lags_behind_tokens_is_put_to_them() -> None:
    """Of several lags the one counts that explains most."""
    rng = np.random.default_rng(3)
    tokens = rng.poisson(50, (41, 2)).astype(np.float64)
    energy_j = tokens[:-1] @ np.array([PROMPT_J, DECODE_J])
    late = split_phases(
        energy_j=energy_j, span_sec=np.ones(40), tokens=np.stack([tokens[1:], tokens[:-1]]), idle_power_w=0.0
    )
    assert late.prefill is not None and late.prefill.per_token_j == pytest.approx(PROMPT_J)


def test_a_span_that_is_not_known_is_left_out() -> None:
    """Its tokens cost what those of the others cost."""
    prompts, outputs = np.array([100.0, 0.0] * 20), np.array([10.0, 50.0] * 20)
    energy_j = 0.1 * prompts + 0.2 * outputs
    energy_j[3] = np.nan
    found = split(prompts, outputs, energy_j)
    assert found.prefill is not None and found.decode is not None
    assert found.prefill.energy_j == pytest.approx(0.1 * prompts.sum())
    assert found.decode.energy_j == pytest.approx(0.2 * outputs.sum())


ALTERNATING = np.array([100.0, 50.0] * 20)


@pytest.mark.parametrize(
    ("prompts", "outputs", "energy_j", "reason"),
    [
        (ALTERNATING, 2 * ALTERNATING, ALTERNATING, "in one proportion"),
        (ALTERNATING[:10], ALTERNATING[10:20], ALTERNATING[:10], "10 spans of time are fewer than 20"),
        (ALTERNATING, 0 * ALTERNATING, ALTERNATING, "only one phase"),
        (ALTERNATING, ALTERNATING[::-1], 0 * ALTERNATING, "no more than the idle power"),
        (ALTERNATING, ALTERNATING[::-1], 3 * ALTERNATING - 2 * ALTERNATING[::-1], "less than none"),
        (np.tile([100.0, 0], 20), np.eye(40)[39], np.arange(40.0), "in one proportion"),
    ],
)
def test_what_a_fit_cannot_tell_has_a_reason(
    prompts: np.ndarray, outputs: np.ndarray, energy_j: np.ndarray, reason: str
) -> None:
    """Requests that are all alike, too short a run, one phase alone, nothing above idle, energy that follows no tokens."""
    found = split(prompts, outputs, energy_j)
    assert found.prefill is None and found.decode is None and found.r2 is None
    assert found.reason is not None and reason in found.reason


def test_noise_that_hides_both_is_told() -> None:
    """An interval that is wider than all the energy says nothing."""
    assert run(0, spans=20, noise_j=2_000.0).reason is not None


def test_processes_with_devices_of_their_own_add_up() -> None:
    """Energies and tokens add up, errors as independent ones do; the least explained counts."""
    phase = Estimate(energy_j=30.0, within_j=3.0, tokens=100)
    other = Estimate(energy_j=10.0, within_j=4.0, tokens=100)
    both = joined(
        [PhaseSplit(prefill=phase, decode=other, r2=0.9), PhaseSplit(prefill=other, decode=other, r2=0.8)]
    )
    assert both.prefill == Estimate(energy_j=40.0, within_j=5.0, tokens=200) and both.r2 == 0.8
    below = Estimate(energy_j=-30.0, within_j=4.0, tokens=100)
    assert joined([PhaseSplit(prefill=phase), PhaseSplit(prefill=below)]) == PhaseSplit(
        prefill=Estimate(energy_j=0.0, within_j=5.0, tokens=200)
    )
    assert joined([PhaseSplit(prefill=phase, decode=phase), PhaseSplit(reason="no")]) == PhaseSplit(
        reason="no"
    )
