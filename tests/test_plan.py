"""Plans: what is written is what is measured, and what is wrong is named by its key."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.errors import PlanError
from llem.plan import Plan
from llem.plan_file import config_hash, convert, resolve_plan, section_of
from llem.plan_toml import to_toml


def test_the_default_plan_survives_toml() -> None:
    """The printed plan reads back to the same plan."""
    assert convert(tomllib.loads(to_toml(Plan()))) == Plan()


def test_every_key_is_printed_with_its_meaning() -> None:
    """No key is left out: one without a value is a comment, and each says what it means and what it may be."""
    text = to_toml(Plan())
    lines = [line for line in text.splitlines() if " = " in line]
    assert all(line.partition("  # ")[2].strip() for line in lines)

    def keys(section: type[msgspec.Struct]) -> list[str]:
        inner = [(field.name, section_of(field.type)) for field in msgspec.structs.fields(section)]
        return [key for name, kind in inner for key in (keys(kind) if kind else [name])]

    named = [line.removeprefix("# ").partition(" = ")[0] for line in lines]
    assert sorted(named) == sorted(_expected(keys(Plan)))


def _expected(keys: list[str]) -> list[str]:
    """A table of free keys is printed as its keys."""
    return [*(key for key in keys if key != "generation"), "seed", "ignore_eos"]


def test_a_value_that_is_not_the_default_has_its_default_beside_it() -> None:
    """And a threshold may be infinite, which TOML can say and JSON cannot."""
    plan = convert({"engine": {"batch_size": 8}, "validity": {"max_sample_gap_s": float("inf")}})
    text = to_toml(plan)
    assert "batch_size = 8  # prompts that run together; default 4" in text
    assert "max_sample_gap_s = inf  #" in text
    assert convert(tomllib.loads(text)) == plan


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=3),
    st.none() | st.text(max_size=8),
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=3),
)
def test_every_text_and_number_survives_toml(
    labels: dict[str, str], name: str | None, curve: list[tuple[float, float]]
) -> None:
    """Labels with any characters, names and lists of rows survive being printed and read."""
    plan = convert({"labels": labels, "name": name, "meter": {"simulated": {"curve": curve}}})
    assert convert(tomllib.loads(to_toml(plan))) == plan


def test_options_win_over_settings_and_settings_over_the_file(tmp_path: Path) -> None:
    """File, then --set, then options."""
    path = tmp_path / "plan.toml"
    path.write_text("[engine]\nbatch_size = 1\nname = 'simulated'\n[workload]\nrequests = 3\n")
    plan = resolve_plan(
        path,
        options={"engine.batch_size": 3, "model.name": None},
        settings=["engine.batch_size=2", "workload.seed = 7", "model.name=gpt2"],
    )
    assert (plan.engine.batch_size, plan.engine.name, plan.workload.requests) == (3, "simulated", 3)
    assert (plan.workload.seed, plan.model.name) == (7, "gpt2")


def test_yaml_is_a_plan_too(tmp_path: Path) -> None:
    """A YAML file is read where PyYAML is installed."""
    path = tmp_path / "plan.yaml"
    path.write_text("engine: {batch_size: 6}\n")
    assert resolve_plan(path, options={}).engine.batch_size == 6


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
        "labels: &all {inner: *all}\n",
    ],
    ids=["aliases of aliases", "a table in itself"],
)
def test_yaml_without_end_is_refused_at_once(tmp_path: Path, text: str) -> None:
    """A few lines whose aliases stand for more than a machine can hold."""
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match="is too large: expected at most 100000 keys and values"):
        resolve_plan(path, options={})


def test_yaml_may_name_a_part_twice(tmp_path: Path) -> None:
    """An alias and a merged table are read as PyYAML does; an empty file says what it is."""
    path = tmp_path / "plan.yaml"
    path.write_text("engine: {<<: &size {batch_size: 6}}\nlabels: {a: &x y, b: *x}\n")
    plan = resolve_plan(path, options={})
    assert (plan.engine.batch_size, plan.labels) == (6, {"a": "y", "b": "y"})
    path.write_text("")
    with pytest.raises(PlanError, match="NoneType"):
        resolve_plan(path, options={})


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            {"engine": {"batch_sise": 1}},
            "unknown plan key engine.batch_sise; did you mean engine.batch_size?",
        ),
        (
            {"engine": {"simulated": {"prefil_ms": 1}}},
            "engine.simulated.prefil_ms; did you mean engine.simulated.prefill_ms?",
        ),
        ({"engine": {"batch_size": "x"}}, "plan key engine.batch_size: found 'x', expected a whole number"),
        ({"workload": {"path": ["p"]}}, "plan key workload.path: found a list, expected a text"),
        ({"windows": {"baseline_s": "x"}}, "plan key windows.baseline_s: found 'x', expected a number"),
        ({"model": {"trust_remote_code": "yes"}}, "found 'yes', expected true or false"),
        ({"workload": {"input_tokens": {"kind": "zipf"}}}, "plan key workload.input_tokens.kind"),
        (
            {"engine": 3},
            "plan key engine: found 3, expected a table with name, device, batch_size, parallel, simulated",
        ),
        (
            {"workload": {"input_tokens": 10}},
            "found 10, expected a table with kind, mean, spread, min, max, such as workload.input_tokens.kind",
        ),
        (
            {"engine": {"name": "vllm"}},
            "plan key engine.name: found 'vllm', expected one of transformers, simulated",
        ),
        (
            {"engine": {"name": "simulate"}},
            "expected one of transformers, simulated; did you mean simulated?",
        ),
        ({"workload": {"source": "synthetic", "path": "p"}}, "found synthetic, and workload.path"),
        ({"windows": {"baseline_s": float("nan")}}, "plan key windows.baseline_s"),
        ({"workload": {"max_duration_s": float("inf")}}, "plan key workload.max_duration_s"),
        ({"workload": {"requests": 10**30}}, "plan key workload.requests"),
        ({"workload": {"min_duration_s": -1}}, "plan key workload.min_duration_s"),
        ({"name": "x" * 300}, "plan key name"),
        ({"xyz": 3}, "unknown plan key xyz; known here: name"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(table: dict[str, object], told: str) -> None:
    """The error gives the full path of the key and a suggestion or the expected type."""
    with pytest.raises(PlanError) as caught:
        convert(table)
    assert told in str(caught.value)


def test_a_path_alone_means_the_file() -> None:
    """A plan that names prompts measures them."""
    assert convert({"workload": {"path": "p.jsonl"}}).workload.source == "file"


def test_the_hash_tells_what_is_measured() -> None:
    """Labels, name and thresholds leave the hash unchanged; the batch size and the wrapped program do not."""
    plan = Plan()
    same = convert(
        {"labels": {"a": "b"}, "name": "n", "validity": {"min_samples": 5}, "log": {"sync": "close"}}
    )
    other = convert({"engine": {"batch_size": 5}})
    assert config_hash(plan) == config_hash(same) != config_hash(other)
    assert config_hash(plan) != config_hash(plan, ["sleep", "1"])


def test_a_plan_with_one_meter_has_the_hash_that_it_always_had() -> None:
    """Repeats of a configuration are found in logs of any age; another meter beside the first is another configuration."""
    usual = "bcf7a45d777d7fafcd41bef300c0702bb09c8ef2682bf6ce982f6bd2636d8439"
    assert config_hash(Plan()) == usual
    assert config_hash(convert({"meter": {"name": "nvml", "also": ["rapl"]}})) != config_hash(
        convert({"meter": {"name": "nvml"}})
    )


def test_a_plan_is_frozen_and_forbids_unknown_keys_everywhere() -> None:
    """Every table of the plan is a frozen Struct that refuses what it does not know."""
    sections = [
        Plan,
        *(
            field.type
            for field in msgspec.structs.fields(Plan)
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
        ),
    ]
    assert len(sections) > 8
    for section in sections:
        assert section.__struct_config__.frozen and section.__struct_config__.forbid_unknown_fields


def test_a_rate_or_a_trace_says_what_kind_of_load_is_meant() -> None:
    """Without load.kind, a rate means an open loop and a trace its times; neither, a closed loop."""
    assert convert({"load": {"rate": 4}}).load.kind == "open"
    assert convert({"load": {"trace": "t.jsonl"}}).load.kind == "trace"
    assert convert({"load": {"concurrency": 4}}).load.kind == "closed"
    assert convert(msgspec.to_builtins(convert({}))) == convert({})


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (
            {"concurrency": 4, "rate": 3},
            "plan key load: found load.concurrency and load.rate, expected one of them",
        ),
        ({"kind": "open"}, "plan key load.rate: expected a value, for load.kind = 'open'"),
        ({"kind": "trace"}, "plan key load.trace: expected a value, for load.kind = 'trace'"),
        ({"max_concurrency": 3}, "found closed, expected open or trace, to set load.max_concurrency"),
        ({"rate": 3, "time_scale": 2}, "found open, expected trace, to set load.time_scale"),
        ({"rate": 3, "burstiness": 0.5}, "found poisson, expected gamma, to set load.burstiness"),
        ({"rate": 0}, "plan key load.rate: found 0"),
        ({"concurrency": 100_000}, "plan key load.concurrency: found 100000"),
    ],
)
def test_a_load_that_contradicts_itself_is_refused(load: dict[str, object], said: str) -> None:
    """The error names the key, what was found and what was expected."""
    with pytest.raises(PlanError) as refused:
        convert({"load": load})
    assert said in str(refused.value)
