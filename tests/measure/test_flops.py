"""The FLOPs formula against torch's own counter in `generate`."""

from collections.abc import Callable
from typing import Any

import pytest

from llem.plan import ModelPlan
from llem.results.flops import ModelShape, decode_flops, model_shape, prefill_flops

PROMPT = 96
COUNTED = "eager"  # torch's counter knows no formula for the fused attention of the CPU


def tiny_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=500, hidden_size=128, intermediate_size=352, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, head_dim=48, attn_implementation=COUNTED,
        )
    )  # fmt: skip


def tiny_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 700, "n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 128}
    return GPT2LMHeadModel(GPT2Config(**sizes, attn_implementation=COUNTED))


def tiny_mistral() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(
        MistralConfig(
            vocab_size=400, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, sliding_window=40, attn_implementation=COUNTED,
        )
    )  # fmt: skip


def shape_of(model: Any) -> ModelShape:
    from llem.engines.hf_facts import LoadFacts, model_facts
    from llem.engines.hf_model import Weights
    from llem.engines.sources import ModelSource

    source = ModelSource(kind="config", name="m", location="m", weights="random")
    loading = LoadFacts(source, ModelPlan(), tokenizer="bytes", cache="dynamic", load_time_ns=0)
    shape = model_shape(model_facts(Weights(model, doubts=[]), loading))
    assert shape is not None
    return shape


def counted(model: Any, *, new_tokens: int) -> int:
    """FLOPs of `generate` by torch's counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.ones((1, PROMPT), dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model.eval().generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
        )
    return int(counter.get_total_flops())


@pytest.mark.torch
@pytest.mark.parametrize("make_model", [tiny_llama, tiny_gpt2])
@pytest.mark.slow
def test_formula_against_the_counter(make_model: Callable[[], Any]) -> None:
    """Prefill and decode steps of a real model have the formula's FLOPs to within 2 %."""
    model = make_model()
    shape, prefill = shape_of(model), counted(model, new_tokens=1)
    decode = counted(model, new_tokens=2) - prefill
    assert prefill_flops(shape, tokens=PROMPT) == pytest.approx(prefill, rel=0.02)
    assert decode_flops(shape, context=PROMPT + 1) == pytest.approx(decode, rel=0.02)


@pytest.mark.torch
@pytest.mark.slow
def test_sliding_window_against_the_counter() -> None:
    """A decode step of a sliding-window model attends to its window only."""
    model = tiny_mistral()
    shape = shape_of(model)
    decode = counted(model, new_tokens=2) - counted(model, new_tokens=1)
    assert (shape.sliding_window, shape.sliding_window_layers) == (40, 3)
    assert decode_flops(shape, context=PROMPT + 1) == pytest.approx(decode, rel=0.02)
