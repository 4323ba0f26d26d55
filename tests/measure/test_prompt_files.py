"""Prompt files measured by the real program: what is in them is asked, what is not used is said, what cannot be asked fails alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SIMULATED, Run, bare_events, mostly_slow, segments

BRIEF = (
    *("--set", "workload.requests=4"),
    *("--set", "workload.min_duration_s=0"),
    *("--set", "windows.baseline_s=0"),
    *("--set", "windows.baseline_after_s=0"),
    *("--set", "windows.warmup_min_batches=1"),
    *("--set", "windows.warmup_max_batches=1"),
    *("--set", "workload.output_tokens.mean=2"),
)
Requests = list[dict[str, Any]]


def measured(store: Path) -> Requests:
    """The requests of the measurement, in order."""
    events = [event for segment in segments(store, "worker") for event in bare_events(segment)]
    requests = [
        request
        for kind, _, _, body in events
        if kind == "requests_completed" and body["window"] == "measurement"
        for request in body["requests"]
    ]
    return sorted(requests, key=lambda request: int(request["request_id"]))


FILES = {
    "ShareGPT": (
        "sharegpt.json",
        b'[\n  {"id": "a", "conversations": [\n    {"from": "human", "value": "Write."}\n  ]}\n]\n',
        [(6, 2)],
        "not used: id",
    ),
    "CSV": ("prompts.csv", b'prompt,max_tokens\n"Hello, world",3\n"two\nlines",4\n', [(12, 3), (9, 4)], ""),
    "JSON Lines with a mark": ("bom.jsonl", b'\xef\xbb\xbf{"prompt":"Hello"}\n', [(5, 2)], ""),
    "text with a mark": ("bom.txt", b"\xef\xbb\xbfHello\n", [(5, 2)], ""),
    "unknown fields": (
        "p.jsonl",
        b'{"prompt":"Hello","output_tokens":3,"best_of":7}\n',
        [(5, 3)],
        "not used: best_of",
    ),
}


@pytest.mark.parametrize(
    ("name", "content", "asked", "told"), mostly_slow(FILES.values(), every=6), ids=FILES.keys()
)
def test_what_is_in_the_file_is_asked(
    name: str, content: bytes, asked: list[tuple[int, int]], told: str, llem: Run, tmp_path: Path, store: Path
) -> None:
    """A path alone means the file; its prompts and lengths are measured, and fields not used are said once."""
    (tmp_path / name).write_bytes(content)
    done = llem("measure", *SIMULATED, *BRIEF, "--set", f"workload.path={tmp_path / name}")
    assert done.returncode == 0, done.stderr
    counts = [(request["input_tokens"], request["output_tokens"]) for request in measured(store)]
    assert counts == (asked * 4)[:4]
    assert done.stderr.count("not used") == bool(told)
    assert told in done.stderr


@pytest.fixture(scope="module")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a tiny Llama of 128 positions, with a byte tokenizer that begins with <s>, and a chat template where given."""

    def save(*, template: str | None = None, tokenizer: bool = True) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp("model")
        config = LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            bos_token_id=0,
            eos_token_id=1,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        if tokenizer:
            _save_tokenizer(folder, template)
        return folder

    return save


def _save_tokenizer(folder: Path, template: str | None) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = {letter: index + 2 for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={"<s>": 0, "</s>": 1} | letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    fast.save_pretrained(folder)


TEMPLATE = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}[{{ m['content'] }}]{% endfor %}"
CPU = ("--set", "engine.device=cpu", "--meter", "simulated")


def messages(*pairs: tuple[str, str]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})


@pytest.mark.slow
@pytest.mark.torch
def test_chat_templates_and_begin_tokens(
    save_model: Callable[..., Path], llem: Run, tmp_path: Path, store: Path
) -> None:
    """Messages go through the template once, a begin token is never doubled, and a template's refusal fails its request alone."""
    path = tmp_path / "p.jsonl"
    lines = [
        messages(("system", "Be brief"), ("user", "Hi")),
        json.dumps({"prompt": "<s>[Hi]"}),
        json.dumps({"prompt": "Hi"}),
        messages(("user", "Hi"), ("system", "Be brief")),
    ]
    path.write_text("\n".join(lines))
    model = save_model(template=TEMPLATE)
    done = llem("measure", "--model", model, *CPU, *BRIEF, "--set", f"workload.path={path}")
    assert done.returncode == 1
    requests = measured(store)
    # <s>[Be brief][Hi], <s>[Hi], <s>Hi
    assert [request["input_tokens"] for request in requests] == [15, 5, 3, 0]
    assert [request["finish_reason"] for request in requests][3:] == ["error"]
    assert "system comes first" in requests[3]["error"]


@pytest.mark.slow
@pytest.mark.torch
def test_every_prompt_through_the_template_or_none(
    save_model: Callable[..., Path], llem: Run, tmp_path: Path, store: Path
) -> None:
    """workload.chat = always makes a text a message of the user; never, with special_tokens = never, takes the bare text."""
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "Hi"}) + "\n" + messages(("system", "Be"), ("user", "Hi")) + "\n")
    model = save_model(template=TEMPLATE)
    options = (
        "--model",
        model,
        *CPU,
        *BRIEF,
        "--set",
        "workload.requests=2",
        "--set",
        f"workload.path={path}",
    )
    assert llem("measure", *options, "--set", "workload.chat=always").returncode == 0
    # <s>[Hi], <s>[Be][Hi]
    assert [request["input_tokens"] for request in measured(store)] == [5, 9]
    other = store.with_name("other")
    bare = ("--set", "workload.chat=never", "--set", "workload.special_tokens=never")
    assert llem("measure", *options, *bare, "--store", other).returncode == 0
    # Hi, Be\nHi
    assert [request["input_tokens"] for request in measured(other)] == [2, 5]


@pytest.mark.slow
@pytest.mark.torch
def test_messages_for_a_model_without_a_template(
    save_model: Callable[..., Path], llem: Run, tmp_path: Path, store: Path
) -> None:
    """It is refused before the model is loaded, with what to try."""
    path = tmp_path / "p.jsonl"
    path.write_text(messages(("user", "Hi")))
    done = llem("measure", "--model", save_model(), *CPU, *BRIEF, "--set", f"workload.path={path}")
    assert done.returncode == 2
    assert "has no chat template" in done.stderr and "workload.chat = 'never'" in done.stderr
    kinds = [event[0] for segment in segments(store) for event in bare_events(segment)]
    assert "model_loaded" not in kinds


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    ("policy", "status", "lengths", "told"),
    [
        ("fail", 1, [6, 6, 0, 6], "1 of 4 prompts cannot be asked and fail"),
        ("skip", 0, [6, 6, 6], "1 of 4 prompts"),
        ("truncate", 0, [6, 6, 126, 6], "lost their beginning"),
    ],
)
def test_one_prompt_that_is_too_long(
    policy: str,
    status: int,
    lengths: list[int],
    told: str,
    save_model: Callable[..., Path],
    llem: Run,
    tmp_path: Path,
    store: Path,
) -> None:
    """It fails, is left out or is shortened, as the plan says; the others are measured."""
    path = tmp_path / "p.txt"
    path.write_text("short\nshort\n" + "word " * 60 + "\nshort\n")
    options = (*CPU, *BRIEF, "--set", f"workload.path={path}", "--set", f"workload.too_long={policy}")
    done = llem("measure", "--model", save_model(), *options)
    assert done.returncode == status, done.stderr
    assert [request["input_tokens"] for request in measured(store)] == lengths
    assert told in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.torch
def test_only_prompts_that_are_too_long(
    save_model: Callable[..., Path], llem: Run, tmp_path: Path, store: Path
) -> None:
    """Where no prompt can be asked, the run ends before its baseline, with the reason."""
    path = tmp_path / "p.txt"
    path.write_text("word " * 60)
    done = llem("measure", "--model", save_model(), *CPU, *BRIEF, "--set", f"workload.path={path}")
    assert done.returncode == 2
    assert "none of 4 prompts can be asked: the prompt is too long" in done.stderr
