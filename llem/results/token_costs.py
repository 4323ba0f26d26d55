"""What a token of a prompt, an output token and a second of idling cost, by regression over runs of different lengths.

Each run's mean power is taken to be the idle power + a x prompt tokens/s + b x output tokens/s; where an idle power was measured, it is an observation
of its own, without tokens. Powers are fitted and not energies, so that a long run counts no more than a short one.
"""

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from llem.results import student_t
from llem.results.least_squares import Fit, Floats, fit


class RunTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What a run used and did; None where it was not measured."""

    input_tokens: int | None
    output_tokens: int | None
    duration_sec: float | None
    energy_j: float | None
    idle_power_w: float | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A cost with its interval."""

    value: float
    low: float
    high: float


class TokenCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Energy above idle of a token, and the power of idling; None with the reason why they cannot be told."""

    runs: int
    input_token_j: Cost | None = None
    output_token_j: Cost | None = None
    idle_w: Cost | None = None
    r2: float | None = None  # of the runs' energies: what part of their differences the costs explain
    reason: str | None = None


def token_costs(runs: Sequence[RunTotals], *, level: float = student_t.LEVEL) -> TokenCosts:
    """The three costs over some runs of one configuration that differ in their lengths."""
    if any(
        None in (run.input_tokens, run.output_tokens, run.energy_j) or not run.duration_sec for run in runs
    ):
        return TokenCosts(runs=len(runs), reason="tokens or energy were not measured in every run")
    blocks = [list(_observations(run)) for run in runs]
    rows = np.array([row for block in blocks for row in block], dtype=np.float64).reshape(-1, 4)
    starts = np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    found = fit(rows[:, :3], rows[:, 3], starts=starts) if runs else None
    if found is None:
        return TokenCosts(
            runs=len(runs),
            reason="prompt tokens, output tokens and time came in one proportion, or in too few runs: other lengths, or an idle power, would tell",
        )
    input_token_j, output_token_j, idle_w = _costs(found, level)
    return TokenCosts(
        runs=len(runs),
        input_token_j=input_token_j,
        output_token_j=output_token_j,
        idle_w=idle_w,
        r2=_explained(runs, found.coefficients),
    )


def _observations(run: RunTotals) -> Iterator[tuple[float, float, float, float]]:
    """Tokens of both kinds a second, 1 for the idle power, and the power; the latter of the run and of idling before it."""
    duration_sec, energy_j = run.duration_sec or math.nan, run.energy_j or 0.0
    rates = (run.input_tokens or 0) / duration_sec, (run.output_tokens or 0) / duration_sec
    yield (*rates, 1.0, energy_j / duration_sec)
    if run.idle_power_w is not None:
        yield 0.0, 0.0, 1.0, run.idle_power_w


def _costs(found: Fit, level: float) -> list[Cost]:
    half = student_t.quantile(level, found.degrees) * found.errors
    return [
        Cost(value=float(value), low=float(value - distance), high=float(value + distance))
        for value, distance in zip(found.coefficients, half, strict=True)
    ]


def _explained(runs: Sequence[RunTotals], coefficients: Floats) -> float | None:
    """1 less the squares of what is left over, as a share of those around the mean; None where all runs used the same."""
    used = np.array([run.energy_j for run in runs], dtype=np.float64)
    did = np.array(
        [(run.input_tokens, run.output_tokens, run.duration_sec) for run in runs], dtype=np.float64
    )
    around = float(((used - used.mean()) ** 2).sum())
    return 1 - float(((used - did @ coefficients) ** 2).sum()) / around if around > 0 else None
