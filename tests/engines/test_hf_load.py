"""Loading real models by path and making random ones: facts, tokens and errors."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llem.engines import Prompt, create_engine
from llem.engines.sources import preset_names
from llem.errors import EngineError
from llem.plan import Plan

pytestmark = pytest.mark.torch
MakePlan = Callable[..., Plan]


@pytest.mark.slow
def test_facts_of_a_saved_model(make_plan: MakePlan, worded_llama_folder: Path) -> None:
    """Facts come from the real model: counts, shapes, type, tokenizer."""
    facts = create_engine(make_plan(model={"name": str(worded_llama_folder)}), device="cpu").load()
    embedding = 64 * 32
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32  # q and o, k and v, mlp, norms
    assert facts.parameters == 2 * embedding + 2 * layer + 32
    assert facts.non_embedding_parameters == facts.parameters - embedding
    assert facts.output_head_parameters == embedding
    assert facts.weights_bytes == 4 * facts.parameters
    assert (facts.layers, facts.attention_heads, facts.head_size, facts.sliding_window) == (2, 4, 8, None)
    assert (facts.weights, facts.source, facts.dtype, facts.device) == (
        "pretrained",
        "path",
        "float32",
        "cpu",
    )
    assert facts.tokenizer is not None
    assert facts.tokenizer != "bytes"
    assert (facts.load_time_ns or 0) > 0


@pytest.mark.slow
def test_tied_head_is_counted_once_and_multiplies(
    make_plan: MakePlan, save_llama: Callable[..., Path]
) -> None:
    """A tied embedding is one matrix among the parameters, and as the output head it multiplies."""
    facts = create_engine(
        make_plan(model={"name": str(save_llama(tie_word_embeddings=True))}), device="cpu"
    ).load()
    assert facts.non_embedding_parameters == facts.parameters
    assert facts.output_head_parameters == 300 * 32


def test_random_weights_of_a_folder_need_no_weights_file(
    make_plan: MakePlan, llama_folder: Path, tmp_path: Path
) -> None:
    """`weights = "random"` uses the configuration only."""
    (tmp_path / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    facts = create_engine(make_plan(model={"name": str(tmp_path), "weights": "random"}), device="cpu").load()
    assert (facts.weights, facts.source, facts.tokenizer) == ("random", "path", "bytes")


def test_random_weights_depend_on_their_seed(make_plan: MakePlan) -> None:
    """The same seed gives the same weights and leaves torch's own generator alone."""
    import torch

    def weights(seed: int) -> Any:
        engine: Any = create_engine(make_plan(model={"seed": seed}), device="cpu")
        engine.load()
        return torch.cat([parameter.flatten() for parameter in engine._ready.model.parameters()])

    state = torch.random.get_rng_state()
    first, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_configuration_with_dtype(make_plan: MakePlan, llama_folder: Path) -> None:
    """A config.json gives random weights in the plan's type, else in its own."""
    config = str(llama_folder / "config.json")
    planned = create_engine(make_plan(model={"config": config, "dtype": "bfloat16"}), device="cpu").load()
    own = create_engine(make_plan(model={"config": config}), device="cpu").load()
    assert (planned.weights, planned.source, planned.dtype, planned.weights_bytes) == (
        "random",
        "config",
        "bfloat16",
        2 * (planned.parameters or 0),
    )
    assert own.dtype == "float32"


def test_presets_have_the_sizes_their_names_say() -> None:
    """Each preset's shape, built without memory, has the parameters it stands for and ends no sequence early."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from llem.engines.sources import find_model
    from llem.plan import ModelPlan

    expected = {"tiny-llama": 3.03e6, "gpt2-125m": 124.4e6, "llama-1b": 1.236e9, "llama-8b": 8.03e9}
    assert set(expected) == set(preset_names())
    for name, parameters in expected.items():
        config = AutoConfig.from_pretrained(find_model(ModelPlan(name=name)).location)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=2e-3)
        assert (config.eos_token_id, model.generation_config.eos_token_id) == (None, None)


def test_synthetic_prompts_leave_special_tokens_out(make_plan: MakePlan, worded_llama_folder: Path) -> None:
    """Seeded ids have the exact length and come from the tokenizer's ordinary tokens."""
    engine: Any = create_engine(make_plan(model={"name": str(worded_llama_folder)}), device="cpu")
    engine.load()
    prompts = [Prompt(request_id=row, input_tokens=200, max_new_tokens=1, seed=row) for row in range(2)]
    first, second = engine.encode(prompts)
    tokens = engine._prompt_encoder.tokens
    assert [first, second] == engine.encode(prompts)
    assert first.token_ids != second.token_ids
    assert len(first.token_ids) == 200
    assert set(first.token_ids) == set(range(tokens.size)) - tokens.special_ids


def test_byte_tokens_are_exact(make_plan: MakePlan, llama_folder: Path) -> None:
    """Without a tokenizer a token is a byte."""
    engine = create_engine(make_plan(model={"name": str(llama_folder)}), device="cpu")
    engine.load()
    (encoded,) = engine.encode([Prompt(request_id=0, text="häßlich", max_new_tokens=1)])
    assert encoded.token_ids == tuple("häßlich".encode())


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({"text": ""}, "the prompt has no tokens"),
        (
            {"input_tokens": 2000, "max_new_tokens": 100},
            "found 2000 input \\+ 100 output tokens, expected at most 2048 together",
        ),
    ],
)
def test_prompts_that_cannot_be_taken(
    make_plan: MakePlan, llama_folder: Path, prompt: dict[str, Any], said: str
) -> None:
    """An empty or too long prompt is refused before it runs."""
    engine = create_engine(make_plan(model={"name": str(llama_folder)}), device="cpu")
    engine.load()
    (encoded,) = engine.encode([Prompt(request_id=5, **({"max_new_tokens": 1} | prompt))])
    assert re.search(said, encoded.refusal or "")


def test_vocabulary_without_bytes_takes_no_text(make_plan: MakePlan, save_llama: Callable[..., Path]) -> None:
    """A vocabulary under 256 tokens runs synthetic prompts, and refuses text without a tokenizer."""
    engine = create_engine(make_plan(model={"name": str(save_llama(vocab_size=100))}), device="cpu")
    engine.load()
    (encoded,) = engine.encode([Prompt(request_id=0, input_tokens=50, max_new_tokens=1)])
    assert max(encoded.token_ids) < 100
    (refused,) = engine.encode([Prompt(request_id=0, text="a", max_new_tokens=1)])
    assert refused.refusal == "the vocabulary cannot hold bytes: found 100 tokens, expected at least 256"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "cannot be loaded: .*expected config.json and"),
        ({"config.json": '{"model_type": '}, "not a valid JSON file"),
        ({"config.json": '{"model_type": "nonsense"}'}, "model type `nonsense`"),
        (
            {"config.json": '{"model_type": "llama", "hidden_size": "x"}'},
            "found .*TypeError.*str",
        ),
        ({"config.json": '{"model_type": "t5"}'}, "is no causal language model: found T5Config"),
        ({"config.json": '{"model_type": "llama"}'}, "no file named model.safetensors"),
        ({"config.json": '{"model_type": "llama"}', "model.safetensors": "garbage"}, "SafetensorError"),
        ({"config.json": '{"model_type": "llama"}', "pytorch_model.bin": "pickle"}, "safetensors"),
    ],
    ids=[
        "empty",
        "broken json",
        "unknown type",
        "wrong type",
        "not causal",
        "no weights",
        "damaged",
        "pickle only",
    ],
)
def test_unusable_folders_are_told_in_one_line(
    make_plan: MakePlan, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    """Whatever is wrong with a model's files becomes an EngineError of one line."""
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(EngineError, match=said) as raised:
        create_engine(make_plan(model={"name": str(tmp_path)}), device="cpu").load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu", "unknown device: found gpu, expected auto, cpu, cuda"), ("cuda:99", "no (such )?CUDA device")],
)
def test_unknown_devices_are_refused(make_plan: MakePlan, device: str, said: str) -> None:
    """A device that is not there is said before anything is loaded."""
    with pytest.raises(EngineError, match=said):
        create_engine(make_plan(), device=device)
    with pytest.raises(EngineError, match=said):
        create_engine(make_plan(engine={"device": device}), device=None)


OFFLINE = """
import json, sys
from llem.engines import create_engine
from llem.errors import EngineError
from llem.plan import ModelPlan, Plan
for name in json.loads(sys.argv[1]):
    try:
        create_engine(Plan(model=ModelPlan(name=name)), device="cpu").load()
    except EngineError as error:
        print(error)
"""


@pytest.mark.slow
def test_offline_hub_is_respected(tmp_path: Path) -> None:
    """With HF_HUB_OFFLINE a hub name that is not cached is an error at once, with what to try."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", OFFLINE, json.dumps(["tiny-lama", "org/model"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    typo, hub = done.stdout.splitlines()
    assert "the hub is switched off by HF_HUB_OFFLINE" in typo
    assert typo.endswith("did you mean the preset tiny-llama?")
    assert hub.endswith("name a folder, or a preset (gpt2-125m, llama-1b, llama-8b, tiny-llama)")


def test_every_error_of_the_hub_is_told_in_one_line() -> None:
    """Each exception that huggingface_hub can raise is foreseen, and becomes one line that names the model."""
    from huggingface_hub import errors

    from llem.engines.hf_model import LOADING_ERRORS, loading_error
    from llem.engines.sources import ModelSource

    source = ModelSource(kind="hub", name="org/model", location="org/model", weights="pretrained")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    for kind in kinds:
        error = kind.__new__(kind)
        error.args = ("first line\nsecond line",)
        told = str(loading_error(error, source))
        assert isinstance(error, LOADING_ERRORS)
        assert told.startswith("model org/model cannot be loaded")
        assert "\n" not in told


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("GatedRepoError", "found gated access.*accept its licence"),
        ("RepositoryNotFoundError", "found no such model on the hub.*a private model needs `hf auth login`"),
        ("RevisionNotFoundError", "found no revision abc.*check model.revision"),
        ("LocalEntryNotFoundError", "found the hub cannot be reached and the model is not in its cache"),
    ],
)
def test_common_errors_of_the_hub_say_what_to_try(kind: str, said: str) -> None:
    """The cause decides, however deep transformers has wrapped it."""
    from huggingface_hub import errors

    from llem.engines.hf_model import loading_error
    from llem.engines.sources import ModelSource

    source = ModelSource(
        kind="hub", name="org/model", location="org/model", weights="pretrained", revision="abc"
    )
    cause = vars(errors)[kind].__new__(vars(errors)[kind])
    wrapped = OSError("We couldn't connect")
    wrapped.__cause__ = cause
    with pytest.raises(EngineError, match=said):
        raise loading_error(wrapped, source)


def test_lost_devices_are_told_from_full_ones() -> None:
    """A lost CUDA context ends the engine; being out of memory or a wrong id ends only its batch."""
    import torch

    from llem.engines.hf_model import is_fatal

    assert is_fatal(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_fatal(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_fatal(IndexError("index out of range in self"))


def test_out_of_memory_while_loading_says_what_to_try() -> None:
    """A model that does not fit is told with its name and a smaller choice."""
    import torch

    from llem.engines.hf_model import loading_error
    from llem.engines.sources import ModelSource

    source = ModelSource(kind="preset", name="llama-8b", location="x", weights="random")
    told = str(loading_error(torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate"), source))
    assert told.startswith(
        "model llama-8b does not fit into memory: found CUDA out of memory. Tried to allocate"
    )
    assert told.endswith("try model.dtype = 'bfloat16' or a smaller model")
