"""Values of every kind as text and as JSON."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID

import pytest

from llem.export import formats


@pytest.mark.parametrize(
    ("value", "text", "json_text"),
    [
        (None, "", "null"),
        (True, "true", "true"),
        (0, "0", "0"),
        (0.0, "0.0", "0.0"),
        (2**63 - 1, "9223372036854775807", "9223372036854775807"),
        (2**100, "1267650600228229401496703205376", "1267650600228229401496703205376"),
        (1e-7, "1e-07", "1e-7"),
        (math.nan, "nan", '"NaN"'),
        (math.inf, "inf", '"Infinity"'),
        (-math.inf, "-inf", '"-Infinity"'),
        (Decimal("1.10"), "1.10", "1.10"),
        ("", "", '""'),
        (b"\x00\xff", "00ff", '"00ff"'),
        ([1, None, [math.nan]], '[1,null,["NaN"]]', '[1,null,["NaN"]]'),
        ({"a": 0.0, "b": None}, '{"a":0.0,"b":null}', '{"a":0.0,"b":null}'),
        ({1: "x"}, '{"1":"x"}', '{"1":"x"}'),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05", '"2026-01-02T03:04:05"'),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00", '"2026-01-02T00:00:00Z"'),
        (date(2026, 1, 2), "2026-01-02", '"2026-01-02"'),
        (time(3, 4), "03:04:00", '"03:04:00"'),
        (timedelta(seconds=90), "0:01:30", '"PT90S"'),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001", '"00000000-0000-0000-0000-000000000001"'),
    ],
)
def test_a_value_as_text_and_as_json(value: Any, text: str, json_text: str) -> None:
    """Nothing is rounded, NULL is nothing, and JSON stays valid."""
    assert formats.text(value) == text
    assert formats.as_json(value).decode() == json_text
    json.loads(json_text)


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "\n=1",
        "\0",
        " =1",
        "'=1",
        '"=1',
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
    ],
)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    """Every beginning that a spreadsheet takes for a formula."""
    assert formats.neutralised(text) == "'" + text


@pytest.mark.parametrize("text", ["", "model", "a=b", "meta-llama/x", " x", "'quoted'", "5-1", "{}", "[1]"])
def test_other_text_stays(text: str) -> None:
    """Signs within a text are harmless."""
    assert formats.neutralised(text) == text


def written(write: Any, rows: list[list[Any]]) -> str:
    """What a format makes of two columns."""
    out = StringIO()
    write(out, ["a", "b"], rows)
    return out.getvalue()


ROWS = [[None, "x|y\nz"], [0.0, '=1,"2"']]


def test_csv() -> None:
    """RFC 4180: CRLF, doubled quotes, quoted line ends."""
    assert written(formats.write_csv, ROWS) == 'a,b\n,"x|y\nz"\n0.0,"\'=1,""2"""\n'


def test_json() -> None:
    """One array, one object a line; an empty result is an empty array."""
    assert json.loads(written(formats.write_json, ROWS)) == [
        {"a": None, "b": "x|y\nz"},
        {"a": 0.0, "b": '=1,"2"'},
    ]
    assert written(formats.write_json, []) == "[]\n"


def test_jsonl() -> None:
    """One object a line."""
    lines = written(formats.write_jsonl, ROWS).splitlines()
    assert [json.loads(line) for line in lines] == [{"a": None, "b": "x|y\nz"}, {"a": 0.0, "b": '=1,"2"'}]


def test_markdown() -> None:
    """Bars and line ends within a cell cannot break the table."""
    assert written(formats.write_markdown, ROWS).splitlines()[2:] == ["|  | x\\|y z |", '| 0.0 | =1,"2" |']
