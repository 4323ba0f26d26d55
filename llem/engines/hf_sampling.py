"""Chooses the next token of every sequence: the most likely one, or one drawn with a fixed seed."""

import random
from collections.abc import Callable
from typing import Any

import torch

from llem.plan import DecodingPlan

Chooser = Callable[[Any], Any]  # logits (sequences x vocabulary) -> token ids (sequences)


def chooser(decoding: DecodingPlan, device: torch.device, *, batch_index: int) -> Chooser:
    """A chooser for one batch; its draws depend on the seed and the batch alone, not on what ran before."""
    if not decoding.sample:
        return greedy
    generator = torch.Generator(device=device)
    generator.manual_seed(_batch_seed(decoding.seed, batch_index))

    def draw(logits: Any) -> Any:
        probabilities = torch.softmax(restrict(logits.float() / decoding.temperature, decoding), dim=-1)
        return torch.multinomial(probabilities, num_samples=1, generator=generator).squeeze(-1)

    return draw


def _batch_seed(seed: int, batch_index: int) -> int:
    """A seed of 32 bits, of which torch's CPU generator takes no more."""
    return random.Random(f"{seed}:{batch_index}").getrandbits(32)


def greedy(logits: Any) -> Any:
    """The most likely token of each sequence."""
    return logits.argmax(dim=-1)


def restrict(logits: Any, decoding: DecodingPlan) -> Any:
    """Logits with everything outside top_k, then outside top_p, at minus infinity."""
    if decoding.top_k is not None:
        smallest = torch.topk(logits, min(decoding.top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if decoding.top_p is not None and decoding.top_p < 1:
        logits = logits.masked_fill(_outside_nucleus(logits, decoding.top_p), -torch.inf)
    return logits


def _outside_nucleus(logits: Any, top_p: float) -> Any:
    """True for tokens beyond the smallest set of most likely tokens that holds `top_p` of the probability."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = torch.softmax(ordered, dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
