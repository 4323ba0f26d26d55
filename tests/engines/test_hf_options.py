"""What a plan may tell `generate` and `from_pretrained`: keys, values, packages; all refused before anything is measured."""

from pathlib import Path

import pytest

from llem.engines import check_engine
from llem.engines.hf_check import check_options
from llem.errors import LlemError, MissingExtraError, PlanError
from llem.plan import Plan
from llem.plan_file import config_hash, resolve_plan
from llem.plan_toml import to_toml
from tests.conftest import Run, needs

pytestmark = [pytest.mark.torch, needs("transformers")]


def plan(*settings: str) -> Plan:
    return resolve_plan(None, options={}, settings=settings)


def refusal(*settings: str) -> str:
    """What is said of a plan, by the functions that the checking child runs."""
    from llem.engines.hf_options import refusal_of

    refused = refusal_of(plan(*settings))
    return "" if refused is None else str(refused.as_error())


WRONG = {
    "unknown key": (["generation.do_sampel=true"], "did you mean generation.do_sample?"),
    "value without effect": (["generation.temperature=0.5"], "`do_sample` is "),
    "not a truth value": (["generation.do_sample=yes"], "found 'yes', expected true or false"),
    "above one": (["generation.do_sample=true", "generation.top_p=2.0"], "between 0 and 1"),
    "below its range": (["generation.repetition_penalty=-1.0"], "strictly positive"),
    "not a number": (["generation.num_beams=many"], "[generation] cannot be used"),
    "unknown cache": (["generation.cache_implementation=fast"], "nvalid `cache_implementation`"),
    "unknown key of the compiler": (["generation.compile_config.speed=1"], "speed"),
    "a length": (["generation.max_new_tokens=5"], "workload.output_tokens"),
    "a shortest length": (["generation.min_new_tokens=5"], "generation.ignore_eos"),
    "an object": (["generation.streamer=x"], "llem hands its own observers"),
    "several outputs": (["generation.num_return_sequences=2"], "a request has one output"),
    "code of the hub": (["generation.penalty_alpha=0.6"], "runs code from the hub"),
    "drafts for a batch": (["generation.prompt_lookup_num_tokens=3"], "engine.batch_size 4, expected 1"),
    "unknown attention": (["model.load.attn_implementation=fast"], '`attn_implementation="eager"`'),
    "unknown loading option": (["model.load.atn_implementation=sdpa"], "did you mean model.load.attn_implem"),
    "llem's own option": (["model.load.dtype=float32"], "it is model.dtype"),
    "files for random weights": (["model.load.device_map=auto"], "of model.load only attn_implementation"),
    "unknown quantisation": (
        ["model.name=org/model", "model.load.quantization_config=int3"],
        "expected one of aqlm",
    ),
    "package": (["model.name=org/model", "model.load.quantization_config=hqq"], "pip install hqq"),
    "adapter": (["model.name=org/model", "model.load.adapter=x"], "pip install peft"),
}


@pytest.mark.parametrize(("settings", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_used_is_refused_with_the_reason(settings: list[str], said: str) -> None:
    """One line that names the key, or what `generate` says of the value."""
    assert said in refusal(*settings)


@pytest.mark.parametrize(
    "settings",
    [
        ["generation.do_sample=true", "generation.min_p=0.1", "generation.temperature=0.7"],
        ["generation.num_beams=3", "generation.length_penalty=0.5"],
        ["generation.prompt_lookup_num_tokens=3", "engine.batch_size=1"],
        ["generation.eos_token_id=[128001,128009]", "generation.repetition_penalty=1.1"],
        ["generation.cache_implementation=static", "generation.compile_config.mode=reduce-overhead"],
        ["model.load.attn_implementation=eager"],
    ],
)
def test_what_generate_takes_is_taken(settings: list[str]) -> None:
    """Sampling, beams, drafts, penalties, caches, compiling and attention pass."""
    assert refusal(*settings) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["generation.do_sampel=true"], "do_sample"),
        (["generation.top_k=-1", "generation.do_sample=true"], "top_k"),
    ],
)
def test_the_program_refuses_before_anything_is_made(
    llem: Run, store: Path, settings: list[str], said: str
) -> None:
    """Exit status 2, one line, no store."""
    done = llem("measure", *(f"--set={setting}" for setting in settings))
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not store.exists()


def test_own_keys_are_checked_without_transformers() -> None:
    """A seed that is no number is refused where the plan is read, whatever the engine."""
    with pytest.raises(PlanError, match=r"plan key generation.seed: found 'x', expected a whole number"):
        plan("generation.seed=x", "engine.name=simulated")


def test_the_simulated_engine_takes_llems_own_keys_only() -> None:
    """What would have no effect is refused."""
    check_engine(plan("engine.name=simulated", "generation.seed=7", "generation.ignore_eos=true"))
    with pytest.raises(PlanError, match=r"generation.do_sample: found the simulated engine"):
        check_engine(plan("engine.name=simulated", "generation.do_sample=true"))


@pytest.mark.slow
def test_a_missing_package_stays_what_it_is_through_the_child() -> None:
    """The check runs in a process of its own, and its error comes back with its kind."""
    with pytest.raises(MissingExtraError, match="pip install peft"):
        check_options(plan("model.name=org/model", "model.load.adapter=x"))


def test_the_old_section_is_named_with_the_new_one() -> None:
    """[decoding] is gone; the error says where its keys are."""
    with pytest.raises(LlemError, match=r"decoding.sample; use generation.do_sample"):
        plan("decoding.sample=true")


def test_options_are_part_of_the_plan() -> None:
    """They read back from a dry run, and another value is another configuration."""
    asked = plan(
        "generation.do_sample=true", "generation.compile_config.mode=max-autotune", "generation.seed=7"
    )
    (again,) = [resolve_plan_text(to_toml(asked))]
    assert again == asked
    assert asked.generation["seed"] == 7 and asked.generation["ignore_eos"] is False
    assert config_hash(asked) != config_hash(plan("generation.do_sample=true", "generation.seed=7"))
    assert config_hash(plan()) == config_hash(plan("generation.seed=42"))


def resolve_plan_text(text: str) -> Plan:
    import tomllib

    from llem.plan_file import convert

    return convert(tomllib.loads(text))
