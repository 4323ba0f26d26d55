"""Every type of model that can be made tiny: the engine's tokens are those of a bare `generate`, or it is refused."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llem.engines import EncodedPrompt, Engine, Prompt, create_engine
from llem.errors import EngineError
from llem.plan import Plan
from tests.conftest import needs
from tests.engines.tiny_models import ENCODERS, MODEL_TYPES, tiny_config, tiny_model

pytestmark = [pytest.mark.torch, needs("torch"), needs("transformers")]
MakePlan = Callable[..., Plan]
TOKENS, SEED, BATCH = 6, 42, 3
ALONE, PADDED = (6,), (7, 3, 5)
GREEDY: dict[str, Any] = {"do_sample": False}
DRAWN: dict[str, Any] = {"do_sample": True, "top_k": 20}
IN_THE_FAST_SET = ("llama",)


def installed(model_type: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def is_older() -> bool:
    """Whether this transformers is not of the series that the sizes were made for."""
    import transformers

    return transformers.__version__.startswith("4.")


def built(model_type: str) -> Any:
    """The tiny model; an older release may have another configuration for it."""
    try:
        return tiny_model(model_type, **MODEL_TYPES[model_type])
    except Exception as error:
        if is_older():
            pytest.skip(f"this transformers makes no such {model_type}: {error}")
        raise


def bare(model: Any, batch: Sequence[EncodedPrompt], options: dict[str, Any]) -> list[list[int]]:
    """What a user gets who pads on the left, seeds torch and calls `generate`."""
    import torch

    width = max(len(prompt.token_ids) for prompt in batch)
    padding = [width - len(prompt.token_ids) for prompt in batch]
    ids = torch.tensor(
        [[0] * left + list(prompt.token_ids) for left, prompt in zip(padding, batch, strict=True)]
    )
    mask = torch.tensor([[0] * left + [1] * (width - left) for left in padding])
    torch.manual_seed(random.Random(f"{SEED}:{BATCH}").getrandbits(32))
    output = model.generate(ids, attention_mask=mask, max_new_tokens=TOKENS, pad_token_id=0, **options)
    rows: list[list[int]] = output[:, width:].tolist()
    return rows


def prompts(engine: Engine, lengths: Sequence[int]) -> list[EncodedPrompt]:
    return engine.encode(
        [
            Prompt(request_id=row, input_tokens=length, max_new_tokens=TOKENS, seed=row)
            for row, length in enumerate(lengths)
        ]
    )


def told(engine: Engine, batch: Sequence[EncodedPrompt]) -> list[str | None]:
    """The engine's outputs: of a vocabulary of 128 ids without a tokenizer, a character each."""
    requests = engine.run(
        batch, batch_index=BATCH, arrival_ns=0, should_stop=lambda: False, on_tokens=lambda count: None
    )
    return [request.error or request.output for request in requests]


def text_of(token_ids: Sequence[int]) -> str:
    return bytes(token_id % 256 for token_id in token_ids).decode(errors="replace")


@pytest.mark.parametrize(
    "model_type",
    [
        model_type if model_type in IN_THE_FAST_SET else pytest.param(model_type, marks=pytest.mark.slow)
        for model_type in sorted(MODEL_TYPES)
    ],
)
def test_tokens_are_those_of_a_bare_generate(make_plan: MakePlan, tmp_path: Path, model_type: str) -> None:
    """Alone and in a padded batch, greedy and drawn with a seed; and all weights come back from their files."""
    if not installed(model_type):
        pytest.skip(f"this transformers has no {model_type}")
    model = built(model_type)
    model.save_pretrained(tmp_path)
    for options in (GREEDY, DRAWN):
        plan = make_plan(
            model={"name": str(tmp_path)}, workload={"record_text": True}, generation=options | {"seed": SEED}
        )
        engine = create_engine(plan, device="cpu")
        try:
            facts = engine.load()
        except EngineError:
            # an older release cannot run every type: then a bare generate raises too
            assert is_older()
            with pytest.raises((RuntimeError, ValueError, AttributeError, TypeError)):
                bare(model, [EncodedPrompt(request_id=0, max_new_tokens=2, token_ids=(5, 6))], options)
            return
        assert (facts.doubts, facts.attention is None) == ([], False)
        for lengths in (ALONE, PADDED):
            batch = prompts(engine, lengths)
            assert told(engine, batch) == [text_of(row) for row in bare(model, batch, options)]
        engine.close()


@pytest.mark.parametrize(
    "model_type", ["roberta", *(pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS)]
)
def test_encoders_are_refused_before_anything_is_loaded(
    make_plan: MakePlan, tmp_path: Path, model_type: str
) -> None:
    """A model whose tokens see those after them is no decoder, and its configuration tells."""
    tiny_config(model_type).to_json_file(tmp_path / "config.json", use_diff=False)
    with pytest.raises(EngineError, match=r"is an encoder.*\"is_decoder\": true"):
        create_engine(make_plan(model={"config": str(tmp_path / "config.json")}), device="cpu")


def test_what_generate_cannot_run_is_refused_while_loading(make_plan: MakePlan, tmp_path: Path) -> None:
    """A model that raises in its first step is told with what it raised, not batch after batch."""
    tiny_config("qwen2", num_key_value_heads=3).to_json_file(tmp_path / "config.json")
    engine = create_engine(make_plan(model={"config": str(tmp_path / "config.json")}), device="cpu")
    with pytest.raises(EngineError, match="cannot generate: found RuntimeError"):
        engine.load()


def test_enough_types_are_tried() -> None:
    """At least sixty types, of every kind that AutoModelForCausalLM knows."""
    assert len(MODEL_TYPES) >= 60
    kinds = {"llama", "mixtral", "gemma3_text", "jamba", "mamba", "rwkv", "fuyu", "git", "roberta", "trocr"}
    assert kinds <= MODEL_TYPES.keys()
