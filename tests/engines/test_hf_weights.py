"""Models whose files do not hold their weights, and logits that are no numbers: refused or failed, never believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llem.engines import Prompt, create_engine
from llem.errors import EngineError
from llem.plan import Plan
from tests.conftest import needs

pytestmark = [pytest.mark.torch, needs("torch"), needs("transformers")]
MakePlan = Callable[..., Plan]
Tensors = dict[str, Any]


@pytest.fixture
def rewrite(save_llama: Callable[..., Path]) -> Callable[..., Path]:
    """A tiny Llama whose tensors were changed in its file."""
    import safetensors.torch

    def change(how: Callable[[Tensors], Tensors]) -> Path:
        folder = save_llama()
        path = folder / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file(how(tensors), path, metadata={"format": "pt"})
        return folder

    return change


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}


def without_a_layer(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}


def of_another_shape(tensors: Tensors) -> Tensors:
    import torch

    return tensors | {"lm_head.weight": torch.zeros(300, 16)}


def cast_to_int8(tensors: Tensors) -> Tensors:
    import torch

    return {name: tensor.to(torch.int8) if tensor.dim() > 1 else tensor for name, tensor in tensors.items()}


def with_more(tensors: Tensors) -> Tensors:
    import torch

    return tensors | {"model.layers.2.mlp.up_proj.weight": torch.zeros(64, 32)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            renamed,
            "2 tensors missing from its files and drawn at random: model.layers.0.self_attn.q_proj.weight",
        ),
        (without_a_layer, "and 6 more"),
        (of_another_shape, "1 tensor of another shape in its files, and drawn at random: lm_head.weight"),
        (cast_to_int8, "quantised in its files, but no quantisation is named: lm_head.weight (I8)"),
        (with_more, "1 tensor in its files that the model does not use: model.layers.2.mlp.up_proj.weight"),
    ],
)
def test_weights_that_are_not_all_there_are_refused_by_name(
    make_plan: MakePlan, rewrite: Callable[..., Path], how: Callable[[Tensors], Tensors], said: str
) -> None:
    """Random or cast weights in the place of a model's own refuse it, unless the plan allows and labels them."""
    import transformers

    name = str(rewrite(how))
    with pytest.raises(EngineError) as raised:
        create_engine(make_plan(model={"name": name}), device="cpu").load()
    if transformers.__version__.startswith("4.") and how in (of_another_shape, cast_to_int8):
        return  # these releases refuse them in their own words
    assert "do not hold its weights" in str(raised.value) and "model.allow_missing=true" in str(raised.value)
    assert said in str(raised.value)
    labelled = create_engine(make_plan(model={"name": name, "allow_missing": True}), device="cpu").load()
    assert any(said in doubt for doubt in labelled.doubts)


def test_weights_of_another_type_of_model(make_plan: MakePlan, save_llama: Callable[..., Path]) -> None:
    """A file of Llama under the configuration of a GPT-2 is not that GPT-2."""
    folder = save_llama()
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 300}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=r"missing from its files|is corrupted"):
        create_engine(make_plan(model={"name": str(folder)}), device="cpu").load()


def test_tied_weights_are_not_missing(make_plan: MakePlan, save_llama: Callable[..., Path]) -> None:
    """A head that shares its matrix with the embedding is in the file once."""
    import safetensors.torch

    folder = save_llama(tie_word_embeddings=True)
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")
    assert create_engine(make_plan(model={"name": str(folder)}), device="cpu").load().doubts == []


def broken(value: float) -> Callable[[Tensors], Tensors]:
    import torch

    return lambda tensors: tensors | {"model.norm.weight": torch.full((32,), value)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_fail_their_requests(
    make_plan: MakePlan, rewrite: Callable[..., Path], value: float
) -> None:
    """Greedy decoding would choose a token all the same: every request of the batch has failed, with the reason."""
    engine = create_engine(make_plan(model={"name": str(rewrite(broken(value)))}), device="cpu")
    engine.load()
    prompts = [Prompt(request_id=row, input_tokens=4, max_new_tokens=3) for row in range(2)]
    requests = engine.run(
        engine.encode(prompts),
        batch_index=0,
        arrival_ns=0,
        should_stop=lambda: False,
        on_tokens=lambda count: None,
    )
    assert [request.finish_reason for request in requests] == ["error", "error"]
    assert {request.error for request in requests} == {"the model's logits are not finite"}


def test_tokens_that_are_ruled_out_are_no_fault(make_plan: MakePlan, llama_folder: Path) -> None:
    """Minus infinity for single tokens is how `generate` rules them out."""
    options = {"suppress_tokens": [5, 6, 7]}
    engine = create_engine(make_plan(model={"name": str(llama_folder)}, generation=options), device="cpu")
    engine.load()
    (request,) = engine.run(
        engine.encode([Prompt(request_id=0, input_tokens=4, max_new_tokens=3)]),
        batch_index=0,
        arrival_ns=0,
        should_stop=lambda: False,
        on_tokens=lambda count: None,
    )
    assert (request.finish_reason, request.error) == ("length", None)
