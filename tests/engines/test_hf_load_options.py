"""Quantised, adapted and spread models by the packages that do it, where they are installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llem.engines import Prompt, create_engine
from llem.plan import Plan

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
MakePlan = Callable[..., Plan]
FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}
OPTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "8 bits": ("bitsandbytes", {"quantization_config": "bitsandbytes_8bit"}, "bitsandbytes"),
    "4 bits": ("bitsandbytes", {"quantization_config": FOUR_BITS}, "bitsandbytes"),
    "quanto": (
        "optimum.quanto",
        {"quantization_config": {"quant_method": "quanto", "weights": "int8"}},
        "quanto",
    ),
    "torchao": ("torchao", {"quantization_config": "torchao"}, "torchao"),
    "device map": ("accelerate", {"device_map": "auto", "max_memory": {"cpu": "2GB"}}, "none"),
}


@pytest.mark.parametrize(("package", "load", "method"), OPTIONS.values(), ids=OPTIONS.keys())
def test_loading_options_reach_the_model(
    make_plan: MakePlan, save_llama: Callable[..., Path], package: str, load: dict[str, Any], method: str
) -> None:
    """The model is loaded as asked, says so, takes fewer bytes where it is quantised, and generates."""
    pytest.importorskip(package)
    pytest.importorskip("accelerate")
    folder = str(save_llama(hidden_size=64))
    plain = create_engine(make_plan(model={"name": folder}), device="cpu").load()
    engine = create_engine(make_plan(model={"name": folder, "load": load}), device="cpu")
    facts = engine.load()
    assert facts.quantization == method
    if method == "none":
        assert facts.weights_bytes == plain.weights_bytes
    else:
        assert (facts.weights_bytes or 0) < (plain.weights_bytes or 0)
        assert facts.missing["non_embedding_parameters"] == "quantised weights are packed"
    (request,) = engine.run(
        engine.encode([Prompt(request_id=0, input_tokens=4, max_new_tokens=3)]),
        batch_index=0,
        arrival_ns=0,
        should_stop=lambda: False,
        on_tokens=lambda count: None,
    )
    assert (request.finish_reason, request.output_tokens) == ("length", 3)


def test_an_adapter_is_applied(make_plan: MakePlan, save_llama: Callable[..., Path], tmp_path: Path) -> None:
    """Its parameters are the model's, and its name is known."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    folder = str(save_llama())
    lora = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora).save_pretrained(tmp_path)
    plain = create_engine(make_plan(model={"name": folder}), device="cpu").load()
    plan = make_plan(model={"name": folder, "load": {"adapter": str(tmp_path)}})
    facts = create_engine(plan, device="cpu").load()
    assert facts.adapter == str(tmp_path)
    assert (facts.parameters or 0) - (plain.parameters or 0) == 2 * 2 * 4 * 32
