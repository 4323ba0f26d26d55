"""What tokens and idling cost, from runs whose true costs are chosen."""

import msgspec
import numpy as np
import pytest

from llem.results.least_squares import fit
from llem.results.token_costs import Cost, RunTotals, TokenCosts, token_costs

INPUT_J, OUTPUT_J, IDLE_W = 0.02, 0.3, 80.0
LENGTHS = ((32, 32), (512, 32), (32, 256), (512, 256))
REQUESTS = 100
# Value, least and most of each cost of some noisy runs.
KEPT = [0.0198574, 0.01873791, 0.0209769, 0.2993529, 0.2925342, 0.3061715, 79.8002, 79.21487, 80.38554]


def totals(
    rng: np.random.Generator, *, noise: float = 0.0, repeats: int = 3, idle_noise: float | None = 0.0
) -> list[RunTotals]:
    """Runs of an engine that is never idle, so that time follows from tokens; without an idle power some wait."""
    found = []
    for lengths in LENGTHS * repeats:
        inputs, outputs = (REQUESTS * length for length in lengths)
        waiting_sec = rng.uniform(1, 20) if idle_noise is None else 0.0
        duration_sec = 2e-4 * inputs + 2e-3 * outputs + waiting_sec
        energy_j = INPUT_J * inputs + OUTPUT_J * outputs + IDLE_W * duration_sec
        found.append(
            RunTotals(
                input_tokens=inputs,
                output_tokens=outputs,
                duration_sec=duration_sec,
                energy_j=energy_j * (1 + noise * rng.standard_normal()),
                idle_power_w=None
                if idle_noise is None
                else IDLE_W * (1 + idle_noise * rng.standard_normal()),
            )
        )
    return found


def costs_of(found: TokenCosts) -> list[Cost]:
    """All three."""
    assert found.input_token_j and found.output_token_j and found.idle_w, found.reason
    return [found.input_token_j, found.output_token_j, found.idle_w]


@pytest.mark.parametrize("idle_noise", [0.0, None], ids=["idle power measured", "some runs wait"])
def test_exact_costs_are_found(idle_noise: float | None) -> None:
    """Whether idling was measured, or is told by runs that wait for different times."""
    found = token_costs(totals(np.random.default_rng(1), idle_noise=idle_noise))
    assert [cost.value for cost in costs_of(found)] == pytest.approx([INPUT_J, OUTPUT_J, IDLE_W])
    assert (found.runs, found.r2) == (12, pytest.approx(1.0))


@pytest.mark.parametrize("idle_noise", [0.01, None], ids=["idle power measured", "some runs wait"])
def test_intervals_hold_the_truth_as_often_as_they_say(idle_noise: float | None) -> None:
    """In 90 to 99 of 100 draws, of 95 that are promised."""
    rng, draws = np.random.default_rng(2), 400
    held = np.zeros(3)
    for _ in range(draws):
        costs = costs_of(token_costs(totals(rng, noise=0.02, idle_noise=idle_noise)))
        truths = (INPUT_J, OUTPUT_J, IDLE_W)
        held += [cost.low <= truth <= cost.high for cost, truth in zip(costs, truths, strict=True)]
    assert (held >= 0.90 * draws).all() and (held <= 0.99 * draws).all(), held / draws


def test_nothing_costs_nothing() -> None:
    """Runs without tokens of one kind tell the other's cost; where no energy was used no token has any."""
    runs = [
        RunTotals(
            input_tokens=inputs,
            output_tokens=outputs,
            duration_sec=seconds,
            energy_j=INPUT_J * inputs + OUTPUT_J * outputs + IDLE_W * seconds,
        )
        for inputs, outputs, seconds in ((0, 3, 1.0), (4, 0, 2.0), (0, 0, 3.0), (0, 9, 4.0), (8, 0, 9.0))
    ]
    found = costs_of(token_costs(runs))
    assert [cost.value for cost in found] == pytest.approx([INPUT_J, OUTPUT_J, IDLE_W])
    free = token_costs([msgspec.structs.replace(run, energy_j=0.0) for run in runs])
    assert [(cost.low, cost.high) for cost in costs_of(free)] == [(0.0, 0.0)] * 3 and free.r2 is None


def test_costs_and_intervals_stay_what_they_were() -> None:
    """A run and the idling before it are one block, which is left out at once."""
    found = token_costs(totals(np.random.default_rng(5), noise=0.02, idle_noise=0.01))
    ends = [end for cost in costs_of(found) for end in (cost.value, cost.low, cost.high)]
    assert ends == pytest.approx(KEPT, rel=1e-5)


def test_what_cannot_be_told_has_its_reason() -> None:
    """One proportion of tokens, too few runs, none, and what was not measured."""
    rng = np.random.default_rng(3)
    runs = totals(rng)
    alike = [run for run in runs if run.input_tokens == run.output_tokens]
    unmeasured = RunTotals(input_tokens=1, output_tokens=None, duration_sec=1.0, energy_j=1.0)
    for some, reason in (
        (alike, "in one proportion"),
        (runs[:3], "too few runs"),
        ([], "too few runs"),
        ([*runs, unmeasured], "not measured in every run"),
    ):
        found = token_costs(some)
        assert (found.input_token_j, found.runs) == (None, len(some))
        assert reason in (found.reason or "")


def test_a_fit_is_that_of_numpy() -> None:
    """With blocks of one row its errors are near those of the usual formula, whose spread is the same in all rows."""
    rng = np.random.default_rng(4)
    design = np.stack([np.ones(200), rng.uniform(0, 1e6, 200), rng.uniform(0, 1e-3, 200)], axis=1)
    observed = design @ [3.0, 2e-6, 5e3] + rng.standard_normal(200)
    found = fit(design, observed, starts=range(200))
    assert found is not None
    coefficients, squares, *_ = np.linalg.lstsq(design, observed, rcond=None)
    usual = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * squares / 197)
    assert found.coefficients == pytest.approx(coefficients)
    assert found.errors == pytest.approx(usual, rel=0.25)
    assert found.degrees == 197
