"""Choosing the next token: what top_k and top_p leave, and how often each token is drawn."""

from typing import Any

import pytest

from llem.plan import DecodingPlan

torch = pytest.importorskip("torch")
sampling: Any = pytest.importorskip("llem.engines.hf_sampling")

CPU = torch.device("cpu")
PROBABILITIES = [0.5, 0.25, 0.15, 0.1]


def allowed(decoding: DecodingPlan, probabilities: list[float] = PROBABILITIES) -> list[int]:
    logits = torch.tensor([probabilities]).log()
    return sampling.restrict(logits, decoding)[0].isfinite().nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("decoding", "left"),
    [
        (DecodingPlan(), [0, 1, 2, 3]),
        (DecodingPlan(top_k=2), [0, 1]),
        (DecodingPlan(top_k=99), [0, 1, 2, 3]),
        (DecodingPlan(top_p=1.0), [0, 1, 2, 3]),
        (DecodingPlan(top_p=0.5), [0]),
        (DecodingPlan(top_p=0.51), [0, 1]),
        (DecodingPlan(top_p=0.01), [0]),
        (DecodingPlan(top_k=3, top_p=0.9), [0, 1, 2]),
    ],
)
def test_what_top_k_and_top_p_leave(decoding: DecodingPlan, left: list[int]) -> None:
    """top_k keeps the k most likely; top_p the smallest set that holds p, never none."""
    assert allowed(decoding) == left


def test_restriction_follows_the_order_of_probability() -> None:
    """The tokens kept are the likely ones, wherever they stand in the vocabulary."""
    assert allowed(DecodingPlan(top_p=0.7), [0.1, 0.5, 0.15, 0.25]) == [1, 3]


def test_frequencies_follow_the_temperature() -> None:
    """Drawn tokens are as frequent as their probability at the temperature."""
    logits = torch.tensor([PROBABILITIES] * 20_000).log()
    drawn = sampling.chooser(DecodingPlan(sample=True, temperature=0.5), CPU, batch_index=0)(logits)
    squares = [p * p for p in PROBABILITIES]
    frequencies = (drawn.bincount(minlength=4) / len(drawn)).tolist()
    assert frequencies == pytest.approx([p / sum(squares) for p in squares], abs=0.02)


def test_greedy_takes_the_most_likely() -> None:
    """Without sampling the choice is the maximum, whatever seed and temperature say."""
    choose = sampling.chooser(DecodingPlan(temperature=9.0), CPU, batch_index=0)
    assert choose(torch.tensor([[0.1, 3.0, 1.0], [5.0, 0.0, 0.0]])).tolist() == [1, 0]


def test_large_seeds_are_told_apart() -> None:
    """Every bit of the seed and of the batch index matters."""
    logits = torch.zeros(64, 1000)
    draws = {
        tuple(sampling.chooser(DecodingPlan(sample=True, seed=seed), CPU, batch_index=index)(logits).tolist())
        for seed in (1, 2, 1 << 40)
        for index in (0, 1, 1 << 33)
    }
    assert len(draws) == 9
