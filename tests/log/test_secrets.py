"""Secrets never reach a log, and what is not a secret stays readable."""

import re
import time
from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem_events import events
from llem_events.cleaning import fields_with_text
from llem_events.secrets import _SHAPES, _without_shapes, names_secret, scrub, scrub_value

HF = "hf_" + "aB3dE5gH7jK9" * 3
CANARIES = {
    "hugging face": HF,
    "openai": "sk-" + "proj-Ab12Cd34Ef56Gh78",
    "github": "ghp_" + "0123456789abcdefABCDEF",
    "github fine-grained": "github_pat_" + "11ABCDEFG0123456789_abc",
    "gitlab": "glpat-" + "abcdEFGH1234_-xyz",
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "nvidia": "nvapi-" + "abcdefgh12345678ijkl",
    "slack": "xoxb-" + "123456789012-abcdef",
    "google": "AIza" + "SyA1234567890abcdefghijklmnopqrstu",
    "web token": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.s5bDd3Xr0m_hU",
}
SENTENCES = (
    "{}",
    "401 for https://hub.example.org/api with {}.",
    "git+https://{}@github.com/org/private.git",
    "https://user:{}@example.org/x",
    "Authorization: Bearer {}",
    "{{'Authorization': 'Bearer {}'}}",
    "--hf-token {} --model m",
    "HF_TOKEN={} python x.py",
    '{{"api_key": "{}"}}',
)


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("kind", CANARIES)
def test_known_secrets_are_masked_wherever_they_stand(kind: str, sentence: str) -> None:
    """Tokens with a known shape go, whatever is around them."""
    assert CANARIES[kind] not in scrub(sentence.format(CANARIES[kind]))


@pytest.mark.parametrize("sentence", SENTENCES[2:])
def test_announced_secrets_are_masked_whatever_they_look_like(sentence: str) -> None:
    """A password without a shape is known by what stands before it."""
    assert "correcthorse" not in scrub(sentence.format("correcthorse"))


@pytest.mark.parametrize(("mark", "shape"), _SHAPES, ids=[mark for mark, _ in _SHAPES])
@settings(max_examples=3)
@given(st.data())
def test_whatever_has_a_known_shape_is_masked(mark: str, shape: str, data: st.DataObject) -> None:
    """By its shape alone, or by the address before it: no name and no option announces it."""
    pattern = re.sub(r"^\(\?<=.*?\)", "", shape)
    secret = data.draw(st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="ascii")))
    address = "" if pattern == shape else mark
    assert _without_shapes(f"at {address}{secret}") == f"at {address}***"


@pytest.mark.parametrize(
    "text",
    [
        "bearer correcthorse",
        "SSHPASS -p correcthorse me@host",
        "curl -u me:correcthorse",
        "--proxy-user=me:correcthorse",
    ],
)
def test_what_no_name_announces_is_masked(text: str) -> None:
    """Each way alone, in any case."""
    assert "correcthorse" not in scrub(f" {text} ")


@pytest.mark.parametrize(
    "text",
    [
        "Qwen/Qwen3-8B at revision 0123456789abcdef0123456789abcdef01234567",
        "max_new_tokens=32, input_tokens=128",
        "tokenizer=byte-level, eos_token_id: 2",
        "eos_token='</s>', pad_token: [PAD], per_token=0.0264",
        "Setting `pad_token_id` to `eos_token_id`:2 for open-end generation.",
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB",
        "expected str, bytes or os.PathLike object, not NoneType; compass=north, bypass: none",
        "/data/task-specific-finetuned-model/risk-assessment-checkpoint",
        "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
        "no such file: /models/secretary/config.json",
        "https://huggingface.co/docs",
        "mail someone@example.org",
        "avg_energy_per_token_j: found 0.5, expected 0.1",
        "--max-new-tokens 32 --model m",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Token counts, hashes and addresses are no secrets."""
    assert scrub(text) == text


def test_values_are_scrubbed_all_the_way_down() -> None:
    """Dicts, lists and tuples keep their shape."""
    plan = {"labels": {"note": f"uses {HF}"}, "list": [("x", HF)], "count": 3, "none": None}
    assert scrub_value(plan) == {
        "labels": {"note": "uses ***"},
        "list": [("x", "***")],
        "count": 3,
        "none": None,
    }


def test_a_secret_name_hides_its_whole_text() -> None:
    """What stands under `password` is one, whatever it looks like; numbers and counts stay."""
    given = {
        "db_password": "x y z",
        "api-key": "k",
        "max_tokens": 5,
        "token": 7,
        "tokenizer": "bytes",
        "secret": "",
    }
    assert scrub_value(given) == {
        "db_password": "***", "api-key": "***", "max_tokens": 5, "token": 7, "tokenizer": "bytes", "secret": "",
    }  # fmt: skip


def test_lists_and_maps_under_a_secret_name_are_hidden_text_by_text() -> None:
    """Their shape stays, and so do numbers; a map is judged by its own names, a name that is itself a secret goes."""
    given = {
        "passwords": 1,
        "password": ["a b", 5, ("c", "")],
        "secret": {"note": "d", "token": "e"},
        HF: HF,
        7: "x",
    }
    assert scrub_value(given) == {
        "passwords": 1, "password": ["***", 5, ("***", "")], "secret": {"note": "d", "token": "***"}, "***": "***", 7: "x",
    }  # fmt: skip


def test_command_lines_are_scrubbed_option_by_option() -> None:
    """The value after `--hf-token` is masked even when it is an item of its own."""
    assert scrub_value(["run.py", "--hf-token", "abc", "--tokens", "5"]) == [
        "run.py",
        "--hf-token",
        "***",
        "--tokens",
        "5",
    ]


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT_SECRET", "password"]
)
def test_knows_secret_names(name: str) -> None:
    """Names that hold secrets."""
    assert names_secret(name)


@pytest.mark.parametrize(
    "word", ["bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "next", "per", "new"]
)
def test_tokens_of_a_model_are_no_secrets(word: str) -> None:
    """Their names end as those of secrets do."""
    assert not names_secret(f"{word}_token")
    assert scrub(f"{word}_token=<abcdef>") == f"{word}_token=<abcdef>"
    assert names_secret(f"{word}x_token")


@pytest.mark.parametrize(
    "name", ["CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM", "max_new_tokens", "tokenizer"]
)
def test_knows_harmless_names(name: str) -> None:
    """Names that only look like it."""
    assert not names_secret(name)


@pytest.mark.parametrize(
    "piece",
    [
        "token\\",
        "\\",
        "token -a",
        "a",
        "-",
        "password=",
        '"token":',
        "://",
        "-----BEGIN PRIVATE KEY",
        " -u a:",
        "eyJa.",
    ],
)
def test_hostile_texts_cost_little(piece: str) -> None:
    """The time grows with the text and not with its square, whatever stands in it."""
    text = "token" + piece * (30_000 // len(piece))
    started_s = time.process_time()
    scrub(text)
    assert time.process_time() - started_s < 2


def test_no_field_that_can_hold_text_is_passed_over() -> None:
    """Of every record of the vocabulary, however its field is described; a secret in one would stay for ever."""
    records = [
        each for each in vars(events).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)
    ]
    for record in records:
        texts = {name for name, kind in get_type_hints(record).items() if _mentions(kind, str)}
        assert texts <= {*fields_with_text(record), "TYPE"}, record
    assert fields_with_text(events.Request).count("prompt") == 1


def _mentions(kind: object, wanted: type) -> bool:
    return kind is wanted or any(_mentions(part, wanted) for part in get_args(kind))


HEX, WORD = "0123456789abcdef" * 2, "aB3dE5gH7jK9" * 4
# What each begins with, and how many characters follow at the least.
SHORTEST = {
    "hf_": 16, "sk-": 16, "gsk_": 20, "r8_": 20, "xai-": 20, "pplx-": 20, "ghp_": 20, "github_pat_": 20,
    "glpat-": 16, "glrt-": 16, "xoxb-": 10, "xapp-": 10, "nvapi-": 16, "AIza": 30, "ya29.": 20,
    "GOCSPX-": 20, "npm_": 20, "pypi-": 16, "dckr_pat_": 16, "hvs.": 20, "sk_live_": 16, "rk_test_": 16,
    "whsec_": 16, "lin_api_": 20, "ATATT3": 20,
}  # fmt: skip


@pytest.mark.parametrize("start", SHORTEST)
def test_a_secret_has_so_many_characters_at_the_least(start: str) -> None:
    """A shorter word is a word."""
    secret = start + WORD[: SHORTEST[start]]
    assert scrub(f"it is {secret} here") == "it is *** here"
    assert scrub(f"it is {secret[:-1]} here") == f"it is {secret[:-1]} here"


@pytest.mark.parametrize(
    "secret",
    [f"dop_v1_{HEX}", f"dapi{HEX}", f"SK{HEX}", *(f"shp{kind}_{HEX}" for kind in ("at", "ca", "pa", "ss"))],
)
def test_a_secret_of_hexadecimal_digits_is_hidden(secret: str) -> None:
    """All thirty-two of them."""
    assert scrub(f"it is {secret} here") == "it is *** here"
    assert scrub(f"it is {secret[:-1]} here") == f"it is {secret[:-1]} here"
