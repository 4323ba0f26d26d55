"""Prompt files that people have: told apart by content, read whole, or refused by line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llem.errors import PlanError
from llem.plan import Plan
from llem.prompts import PromptSet, read_prompt_set
from llem.prompts.rows import LENGTH_FIELDS

MakePlan = Callable[..., Plan]
ReadFile = Callable[..., PromptSet]


@pytest.fixture
def read(make_plan: MakePlan, tmp_path: Path) -> ReadFile:
    """Reads a file of these bytes as the plan's prompts."""

    def run(content: bytes | str, *, name: str = "prompts", requests: int = 2) -> PromptSet:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_prompt_set(
            make_plan(workload={"source": "file", "path": str(path), "requests": requests})
        )

    return run


def texts(prompts: PromptSet) -> list[str | None]:
    return [prompt.text for prompt in prompts.prompts]


def said(prompts: PromptSet) -> list[list[str]]:
    return [[message.content for message in prompt.messages or ()] for prompt in prompts.prompts]


SAME = {
    "JSON Lines": '{"prompt": "one, two"}\n\n{"text": "three\\nfour"}\n',
    "JSON values over lines": '{"prompt":\n "one, two"}{"text":\n"three\\nfour"}',
    "JSON array": '[{"prompt": "one, two"},\n{"prompt": "three\\nfour"}]\n',
    "JSON array over lines": '\n[\n  {\n    "prompt": "one, two"\n  },\n  "three\\nfour"\n]',
    "CSV": 'id,Prompt\n1,"one, two"\n\n2,"three\nfour"\n',
    "CSV of one column": 'prompt\n"one, two"\n"three\nfour"\n',
    "CSV with semicolons": 'prompt;id\none, two;1\r\n"three\nfour";2\r\n',
    "CSV with tabs": 'text\tid\none, two\t1\n"three\nfour"\t2\n',
    "alpaca": '[{"instruction": "one, two", "input": "", "output": "x"}, {"instruction": "three\\nfour"}]',
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME.keys())
def test_the_same_prompts_in_every_form(read: ReadFile, content: str) -> None:
    """Two prompts are the same two prompts however they are written down."""
    assert texts(read(content)) == ["one, two", "three\nfour"]


ENCODED: dict[str, Callable[[str], bytes]] = {
    "gzip": lambda text: gzip.compress(text.encode()),
    "zstd": lambda text: zstandard.compress(text.encode()),
    "zstd in two frames": lambda text: (
        zstandard.compress(text[:9].encode()) + zstandard.compress(text[9:].encode())
    ),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "gzip and byte order mark": lambda text: gzip.compress(text.encode("utf-8-sig")),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED.keys())
@pytest.mark.parametrize("content", ["größe\nzwei\n", '{"prompt": "größe"}\n{"prompt": "zwei"}\n'])
def test_compression_and_encoding_are_no_part_of_a_prompt(
    read: ReadFile, content: str, encode: Callable[[str], bytes]
) -> None:
    """Compressed files, byte order marks, UTF-16 and line ends change nothing of the prompts."""
    assert texts(read(encode(content))) == ["größe", "zwei"]


def test_lines_of_text(read: ReadFile) -> None:
    """A text has one prompt a line; blank lines are none, and what only resembles JSON or a header is text."""
    assert texts(read("eins\r\n\n zwei\u2028drei\n")) == ["eins", " zwei\u2028drei"]
    assert texts(read("[INST] Hello [/INST]\n{name}, write\n")) == ["[INST] Hello [/INST]", "{name}, write"]
    assert texts(read("Write a prompt, please\ntext of two\n")) == ["Write a prompt, please", "text of two"]


@pytest.mark.parametrize("name", LENGTH_FIELDS)
def test_lengths_under_their_common_names(read: ReadFile, name: str) -> None:
    """A length is taken under each of its names, from JSON and from CSV, and is not called unused."""
    for content in (f'{{"prompt": "a", "{name}": 7}}', f"prompt,{name}\na,7\n"):
        prompts = read(content)
        assert [prompt.max_new_tokens for prompt in prompts.prompts] == [7, 7]
        assert prompts.notes == []


def test_a_short_file_starts_again_and_lengths_may_be_missing(read: ReadFile) -> None:
    """Fewer prompts than requests are repeated; a prompt without a length gets the plan's."""
    prompts = read(
        '{"prompt": "a", "max_tokens": 7}\n{"prompt": "b", "max_tokens": null}\n', requests=3
    ).prompts
    assert [(prompt.text, prompt.max_new_tokens) for prompt in prompts] == [("a", 7), ("b", 32), ("a", 7)]
    assert [prompt.request_id for prompt in prompts] == [0, 1, 2]


def test_fields_that_are_not_used_are_said_once(read: ReadFile) -> None:
    """One line names every field that no prompt uses."""
    prompts = read("".join(f'{{"prompt": "a", "id": {n}, "temperature": 1}}\n' for n in range(9)), requests=9)
    assert [note.partition(": ")[2] for note in prompts.notes] == ["not used: id, temperature"]


OPENAI = {
    "messages": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
    "parts": {
        "messages": [
            {"role": "developer", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
        ]
    },
    "batch": {
        "custom_id": "1",
        "body": {"messages": [{"role": "user", "content": "s"}, {"role": "user", "content": "u"}]},
    },
    "answered": {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "an answer"},
        ]
    },
    "ShareGPT": {
        "id": "a",
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "u"},
            {"from": "gpt", "value": "an answer"},
            {"from": "human", "value": "and"},
        ],
    },
}


@pytest.mark.parametrize("record", OPENAI.values(), ids=OPENAI.keys())
def test_conversations(read: ReadFile, record: dict[str, Any]) -> None:
    """OpenAI requests ask up to the last message that is no answer, ShareGPT up to the first answer."""
    assert said(read(json.dumps([record]), requests=1)) == [["s", "u"]]


def test_conversations_without_a_question_are_left_out_and_counted(read: ReadFile) -> None:
    """An empty conversation is no prompt, and a note says how many there were."""
    records = [
        {"conversations": []},
        {"conversations": [{"from": "gpt", "value": "x"}]},
        {"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "u"}]},
    ]
    prompts = read(json.dumps(records), requests=1)
    assert said(prompts) == [["u"]]
    assert "2 conversations in which no user asks" in prompts.notes[-1]


def test_alpaca_input_follows_its_instruction(read: ReadFile) -> None:
    """The instruction, a blank line, the input; the rendered text with the answer is not taken."""
    record = {"instruction": "Add.", "input": "1 2", "output": "3", "text": "Add. 1 2 3"}
    prompts = read(json.dumps([record]), requests=1)
    assert texts(prompts) == ["Add.\n\n1 2"]
    assert "output, text" in prompts.notes[0]


BAD = {
    "wrong type": (b'{"prompt": "ok"}\n{"prompt": 3}\n', "line 2: prompt: found a number, expected a text"),
    "broken line": (b'{"prompt": "ok"}\n\n{"prompt"\n', "line 3: found "),
    "no prompt": (
        b'{"question": "x"}\n',
        "line 1 has no prompt: found question, expected a field or a column mess",
    ),
    "no length": (
        b'{"prompt": "a", "max_tokens": 0}\n',
        "line 1: max_tokens: found 0, expected a whole number",
    ),
    "two lengths": (b'{"prompt": "a", "max_tokens": 1, "output_len": 2}', "max_tokens 1, output_len 2"),
    "token ids": (b'[{"prompt": [1, 2]}]', "line 1: prompt.0.: found a number, expected an object with role"),
    "empty prompt": (b'{"prompt": ""}', "line 1: prompt: found an empty text"),
    "half a character": (rb'{"prompt": "\ud800"}', r"found .ud800, half of a character"),
    "deep": (b"[" * 100_000, "line 1: found "),
    "deep objects": (b'{"a":' * 100_000, "line 1: found "),
    "many digits": (b'{"a": ' + b"1" * 10_000 + b"}", "line 1: found "),
    "nothing": (b"\n \n", "has no prompts: expected at least one"),
    "empty": (b"", "has no prompts"),
    "array without end": (b'[{"prompt": "a"},\n{"prompt": "b"}', "line 2: found the end of the file"),
    "no comma": (b'[{"prompt": "a"}\n{"prompt": "b"}]', "line 2: found '{', expected ']'"),
    "text after the array": (b'[{"prompt": "a"}]\nx', "line 2: found more text"),
    "not UTF-8": (b'{"prompt": "a"}\n{"prompt": "\xff"}', "is not UTF-8: found line 2, byte 28"),
    "UTF-16 without a mark": ("one\n".encode("utf-16-le"), "is not text: found a zero byte in line 1"),
    "half of UTF-16": (b"\xff\xfea\0b", "truncated"),
    "zip": (b"PK\x03\x04rest", "found a zip archive"),
    "Parquet": (b"PAR1rest", "found a Parquet file"),
    "gzip in gzip": (gzip.compress(gzip.compress(b"one")), "found a gzip file"),
    "cut gzip": (gzip.compress(b"one\n" * 999)[:-9], "cannot be decompressed"),
    "broken gzip": (b"\x1f\x8bxxxxxxxxxxx", "cannot be decompressed"),
    "cut zstd": (zstandard.compress(b"one\n" * 999)[:-3], "ends within a frame"),
    "zstd cut in its second frame": (
        zstandard.compress(b"one\n") + zstandard.compress(b"two\n")[:-3],
        "ends within",
    ),
    "something behind zstd": (zstandard.compress(b"one\n") + b"something", "cannot be decompressed"),
    "broken zstd": (b"\x28\xb5\x2f\xfdxxxxxx", "cannot be decompressed"),
    "image": (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        r"line 1: messages.0.\.content.0.: found image_url, expected a part of type text",
    ),
    "tool calls": (b'{"messages": [{"role": "assistant", "tool_calls": [1]}]}', "found tool_calls"),
    "role": (b'{"messages": [{"role": "king", "content": "x"}]}', "role: found 'king', expected system"),
    "cells": (b"id,prompt\n1,a\n2,b,c\n", "line 3: found 3 cells, expected 2"),
    "open quote": (b'id,prompt\n1,a\n2,"b\n', "line 3: found unexpected end"),
    "line of values": (b'{"prompt": "a"}\n3\n', "line 2: found a number, expected an object or a text"),
}


@pytest.mark.parametrize(("content", "told"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_refused_by_line(read: ReadFile, content: bytes, told: str) -> None:
    """The error names the file, the line, what was found and what was expected."""
    with pytest.raises(PlanError, match=told):
        read(content, requests=9)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.jsonl", "hello\n"),
        ("p.json.gz", "hello\n"),
        ("p.csv", "question,answer\nx,y\n"),
        ("p.yaml", "a: b\n"),
    ],
)
def test_a_name_that_promises_more_than_lines(read: ReadFile, name: str, content: str) -> None:
    """A file called JSON or CSV is never measured line by line."""
    with pytest.raises(PlanError, match=r"is not understood: found \.\w+ that begins with"):
        read(content, name=name)


def test_files_that_are_none(make_plan: MakePlan, tmp_path: Path) -> None:
    """A folder, a device and a name with a zero byte are refused, and nothing waits for a pipe."""
    for path, told in (
        (str(tmp_path), "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("a\0b", "embedded null"),
    ):
        with pytest.raises(PlanError, match=told):
            read_prompt_set(make_plan(workload={"source": "file", "path": path}))


def test_no_more_is_read_than_asked_for(read: ReadFile) -> None:
    """What follows the last prompt needed is not looked at, so that a huge file costs what is used of it."""
    assert texts(read('{"prompt": "a"}\n{"prompt": "b"}\n' + '{"prompt": "c"}\n' * 50_000 + "{")) == [
        "a",
        "b",
    ]


@pytest.mark.slow
def test_bombs_stay_small(make_plan: MakePlan, tmp_path: Path) -> None:
    """A small file that decompresses to gigabytes is refused in bounded memory."""
    import resource

    path = tmp_path / "bomb.zst"
    compressor = zstandard.ZstdCompressor().compressobj()
    with open(path, "wb") as out:
        for _ in range(256):
            out.write(compressor.compress(b"a" * 2**20))
        out.write(compressor.flush())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PlanError, match="line 1 is too long"):
        read_prompt_set(make_plan(workload={"source": "file", "path": str(path)}))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
