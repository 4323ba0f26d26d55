"""What a person sees in a terminal: whole ids, one line a row, nothing that data could drive."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llem.cli import console
from llem.plan import Plan
from llem.store import Store
from tests.cli.terminal import Terminal, on_a_terminal
from tests.forked import ForkedLlem
from tests.world import experiment

RUN = "20260102-030405-0123456789ab"
NAME = "two\nlines \x1b[31mred\u202e"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one experiment whose name wants to drive the terminal."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    experiment(store, experiment_id=RUN, plan=Plan(name=NAME))
    return store.path


Show = Callable[..., Terminal]


@pytest.fixture
def shown(folder: Path, forked: ForkedLlem) -> Show:
    """The screen of a command that must succeed."""

    def show(*arguments: object, **changes: str) -> Terminal:
        environment = {**os.environ, "LLEM_DIR": str(folder), "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        terminal, status = on_a_terminal(arguments, environment={**environment, **changes}, forked=forked)
        assert status == 0, terminal.lines()
        return terminal

    return show


def test_a_row_is_a_line_and_its_id_is_whole(shown: Show) -> None:
    """At 80 columns a run's id can be copied, and a line feed in a name is shown, not done."""
    lines = shown("runs").lines()
    (_,) = [line for line in lines if re.match(r"\d{8}-\d{6}-[0-9a-f]{12} ", line)]
    shown_name = " ".join(lines[2:4])
    assert r"two\nlines" in shown_name
    assert "�[31mred�" in shown_name
    assert max(map(len, lines)) <= 80
    assert "output tokens; --json shows them" in " ".join(map(str.strip, lines[-2:]))


@pytest.mark.parametrize("command", ["runs", "show", "query"])
def test_colour_only_where_it_is_wanted(command: str, shown: Show) -> None:
    """Heads are bold in a terminal; NO_COLOR and TERM=dumb are honoured."""
    arguments = ["query", "SELECT 1 AS one"] if command == "query" else [command]
    assert b"\x1b[1m" in shown(*arguments).written
    assert b"\x1b[" not in shown(*arguments, TERM="dumb").written
    coloured = re.compile(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7])[;m]")
    assert not coloured.search(shown(*arguments, NO_COLOR="1").written)


@pytest.mark.parametrize("form", ["table", "lines", "csv", "json", "jsonl", "md"])
def test_data_cannot_drive_a_terminal(form: str, shown: Show) -> None:
    """Data cannot clear the screen, set the title, hide text or turn its direction."""
    sql = "SELECT 'a' || chr(27) || ']0;owned' || chr(7) || chr(155) || chr(8238) || 'b' AS text"
    written = shown("query", sql, "-f", form).written
    assert b"owned" in written
    assert not any(bad in written for bad in (b"\x1b]", b"\x07", "\x9b".encode(), "\u202e".encode()))


def test_what_does_not_fit_is_said(shown: Show) -> None:
    """A table of 65 columns shows the first ones whole, and names what it leaves out."""
    lines = shown("query", "FROM experiment_results").lines()
    assert re.match(r"\d{8}-\d{6}-[0-9a-f]{12} ", lines[2])
    assert re.search(r"no room for \d+ columns: .* and \d+ more; *-f lines", " ".join(lines))


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("at most 30 s", "utf-8", "at most 30 s"),
        ("at most 30 seconds", "utf-8", "at most 30 …"),
        ("at most 30 seconds", "latin-1", "at most 30 ."),
        ("功率 数据 数据", "utf-8", "功率 数据 …"),
    ],
)
def test_what_is_cut_says_so(text: str, encoding: str, shown: str) -> None:
    """Twelve columns, of which the last is a mark where there is more, in the terminal's own encoding: a number that is cut would be another one."""
    assert console.clipped(text, 12, io.TextIOWrapper(io.BytesIO(), encoding=encoding)) == shown
