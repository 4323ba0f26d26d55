"""What a token of a prompt and a further output token cost, by regression over spans of a run: an estimate, with an interval.

In each span the energy above the idle power is taken to be a x tokens of prompts + b x output tokens after the first, which the prompt's pass brings. Least
squares without a constant find a and b; the delete-one-block jackknife (Efron 1982) over blocks of consecutive spans finds their standard errors, also
where what is left over in one span has to do with the next.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from llem.results import student_t
from llem.results.least_squares import Floats, are_alike, fit
from llem.results.nullable import ratio, root_of_squares, total

MIN_SPANS = 20
BLOCKS = 20


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one phase; the truth lies within so much of it, with a probability of 95 %, if energy follows tokens."""

    energy_j: float
    within_j: float
    tokens: float

    @property
    def per_token_j(self) -> float | None:
        """Of one of its tokens."""
        return ratio(self.energy_j, self.tokens)

    @property
    def per_token_within_j(self) -> float | None:
        """How far the truth may lie from it."""
        return ratio(self.within_j, self.tokens)


class PhaseSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Both phases of all requests, or the reason why they cannot be told apart."""

    prefill: Estimate | None = None
    decode: Estimate | None = None
    r2: float | None = None  # below 0: a constant power explains more
    reason: str | None = None


def split_phases(*, energy_j: Floats, span_sec: Floats, tokens: Floats, idle_power_w: float) -> PhaseSplit:
    """Of spans, one after the other, with their energy, NaN where it is not known, and what was computed in each.

    `tokens` has [lag, span, phase]: the same for several lags of the energy behind the tokens, of which the one that explains most is taken.
    """
    known = ~np.isnan(energy_j)
    above_j = energy_j[known] - idle_power_w * span_sec[known]
    if len(above_j) < MIN_SPANS:
        return PhaseSplit(reason=f"{len(above_j)} spans of time are fewer than {MIN_SPANS}")
    if above_j.sum() <= 0:
        return PhaseSplit(reason="no more than the idle power was used")
    seen = tokens[:, known]
    if not (seen.sum(axis=1) > 0).all():
        return PhaseSplit(reason="there was only one phase")
    lag = _best_lag(seen, above_j)
    costs = None if lag is None else _fit(seen[lag], above_j)
    if lag is None or costs is None:
        return PhaseSplit(reason="prompts and output tokens came in one proportion all the time")
    prefill, decode = (
        Estimate(energy_j=float(cost * count), within_j=float(error * count), tokens=float(count))
        for cost, error, count in zip(*costs, tokens[lag].sum(axis=0), strict=True)
    )
    if max(prefill.within_j, decode.within_j) > above_j.sum():
        return PhaseSplit(reason="the energy of a phase may lie anywhere between nothing and all of it")
    if min(prefill.energy_j + prefill.within_j, decode.energy_j + decode.within_j) < 0:
        return PhaseSplit(reason="energy did not follow tokens: a phase would have less than none")
    left_j = above_j - seen[lag] @ costs[0]
    unexplained = ratio(float((left_j**2).sum()), float(((above_j - above_j.mean()) ** 2).sum()))
    return PhaseSplit(prefill=prefill, decode=decode, r2=None if unexplained is None else 1 - unexplained)


def _best_lag(tokens: Floats, above_j: Floats) -> int | None:
    """The one with the least squares; None where the two kinds of tokens cannot be told apart."""
    squares, products = np.swapaxes(tokens, 1, 2) @ tokens, above_j @ tokens
    if are_alike(squares):
        return None
    costs = np.linalg.solve(squares, products[:, :, None])[:, :, 0]
    return int(np.argmax((products * costs).sum(axis=1)))


def _fit(tokens: Floats, above_j: Floats) -> tuple[Floats, Floats] | None:
    """Both costs, and how far the truth may lie from each; None where the two kinds of tokens cannot be told apart."""
    blocks = min(BLOCKS, len(above_j))
    found = fit(tokens, above_j, starts=(np.arange(blocks) * len(above_j) // blocks).tolist())
    if found is None:
        return None
    return found.coefficients, found.errors * student_t.quantile(student_t.LEVEL, blocks - 1)


def joined(splits: Sequence[PhaseSplit]) -> PhaseSplit:
    """Of several processes, each with devices of its own."""
    reason = next((split.reason for split in splits if split.reason is not None), None)
    if reason is not None:
        return PhaseSplit(reason=reason)
    return PhaseSplit(
        prefill=_sum([split.prefill for split in splits]),
        decode=_sum([split.decode for split in splits]),
        r2=min((split.r2 for split in splits if split.r2 is not None), default=None),
    )


def _sum(estimates: Sequence[Estimate | None]) -> Estimate | None:
    known = [estimate for estimate in estimates if estimate is not None]
    within_j = root_of_squares(estimate.within_j for estimate in known)
    if within_j is None:
        return None
    return Estimate(
        energy_j=total(estimate.energy_j for estimate in known) or 0.0,
        within_j=within_j,
        tokens=sum(estimate.tokens for estimate in known),
    )
