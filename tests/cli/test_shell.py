"""llem shell, at a terminal and in a pipe: completion, history, interrupts, the end."""

import json
import os
import subprocess
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llem.query.typed_sql import Names, candidates, commands, is_whole, names_of, split
from llem.store import Store
from tests.cli.terminal import Terminal, on_a_terminal
from tests.conftest import LLEM, Run, quiet
from tests.forked import ForkedLlem
from tests.world import experiment

NAMES = names_of(
    [
        ("table", "windows", "", "one row per window and device"),
        ("table", "devices", "", ""),
        ("column", "energy_j", "windows", "[J] energy of the device"),
        ("column", "device_uuid", "windows", ""),
        ("column", "power_limit_w", "devices", "[W] its limit"),
        ("macro", "energy_between", "", "(experiment, from_sec, to_sec)"),
    ]
)
Talk = Callable[..., tuple[str, int]]
PROMPT, RUNNING = "llem>", "a query that runs"
CTRL_C, CTRL_D, UP, TAB, ENTER = "\x03", "\x04", "\x1b[A", "\t", "\r"
SESSION = Path(__file__).with_name("shell_session.txt")
ENDLESS = "SELECT count(*) FROM range(1000000000000) a, range(1000000) b WHERE sqrt(a.range) < 0;"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one experiment."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    experiment(store)
    return store.path


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1; SELECT 2;", ["SELECT 1;", "SELECT 2;"], ""),
        ("SELECT ';' AS a", [], "SELECT ';' AS a"),
        ("SELECT 'it''s; ' , \"a;b\"; x", ["SELECT 'it''s; ' , \"a;b\";"], " x"),
        ("SELECT $$ ; $$, $t$;$t$, E'\\';';", ["SELECT $$ ; $$, $t$;$t$, E'\\';';"], ""),
        ("SELECT 1 -- not here;\n+ 1 /* nor ; */;", ["SELECT 1 -- not here;\n+ 1 /* nor ; */;"], ""),
        ("SELECT 'open ; ", [], "SELECT 'open ; "),
        (";;", [], ""),
    ],
)
def test_where_statements_end(text: str, statements: list[str], rest: str) -> None:
    """A semicolon in quotes, dollar quotes or a comment ends nothing."""
    assert split(text) == (statements, rest)


def test_lines_become_commands() -> None:
    """Statements go over lines, a line with a dot stands alone, and the last one needs no semicolon."""
    lines = ["-- first\n", ".tables\n", "SELECT 1\n", "+ .5;.x\n", "\n", "SELECT 2 -- end"]
    assert list(commands(lines)) == [".tables", "SELECT 1\n+ .5;", ".x\n\nSELECT 2 -- end"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True),
        ("  ", True),
        (".tables", True),
        ("SELECT 1", False),
        ("SELECT 1; -- x", True),
        ("';", False),
    ],
)
def test_when_a_text_can_be_run(text: str, whole: bool) -> None:
    """Enter runs what has ended, and begins a line otherwise."""
    assert is_whole(text) is whole


@pytest.mark.parametrize(
    ("before", "after", "offered"),
    [
        ("SELECT en", " FROM windows", ["energy_j", "energy_between(", "END"]),
        ("SELECT * FROM ", "", ["windows", "devices", "energy_between("]),
        ("SELECT w.", " FROM windows w", ["energy_j", "device_uuid"]),
        ("SELECT po", "", ["power_limit_w"]),
        ("SELECT * FROM nobody x WHERE x.", "", []),
    ],
)
def test_what_is_offered(before: str, after: str, offered: Sequence[str]) -> None:
    """Columns of the statement's tables come first; behind FROM stand tables, behind a table's name its columns."""
    assert [each.text for each in candidates(before, after, NAMES)] == list(offered)


def test_what_is_offered_says_its_unit() -> None:
    """A column is told with its unit, a macro with its parameters, a command with what it does."""
    (energy, *_) = candidates("SELECT energy_", " FROM windows", NAMES)
    assert (energy.meaning, energy.replaced) == ("[J] energy of the device", 7)
    with_commands = Names(
        commands={".mode": "how"}, arguments={".mode": {"csv": "commas", "json": "an array"}}
    )
    assert [each.meaning for each in candidates(".mo", "", with_commands)] == ["how"]
    assert [each.text for each in candidates(".mode c", "", with_commands)] == ["csv"]


def piped(folder: Path, written: str, *options: object) -> "subprocess.CompletedProcess[str]":
    """The shell with that on standard input."""
    command = [LLEM, "shell", *options, "--store", folder]
    return quiet(subprocess.run(command, input=written, capture_output=True, text=True, timeout=120))


@pytest.mark.slow
def test_statements_in_a_pipe(folder: Path) -> None:
    """No prompt and no colour; modes last; a table's name stands for its rows; a macro, a saved query and a schema answer."""
    done = piped(
        folder,
        "SELECT 1 AS a;\n.mode csv\nSELECT 2\nAS b;\n.schema windows\n.saved energy_per_token\n.mode json\nSELECT 3 AS c",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a\n─\n1\nb\n2\ncolumn,unit,meaning,type\n")
    assert "\nenergy_j,J,energy of the device in the window" in done.stdout
    assert json.loads(done.stdout[done.stdout.rindex("[") :]) == [{"c": 3}]
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_what_is_sealed_is_asked_statement_after_statement(folder: Path, llem: Run, tmp_path: Path) -> None:
    """As by `llem query --sealed`: the store's own, a folder that is named, or an address; a table and its schema are there."""
    asked = (
        ".mode csv\nSELECT count(*) AS n FROM samples;\nSELECT count(*) AS n FROM windows;\n.schema windows"
    )
    expected = piped(folder, asked).stdout
    assert llem("seal", "--store", folder).returncode == 0
    assert llem("seal", "--to", tmp_path / "apart", "--store", folder).returncode == 0
    for place in ((), (tmp_path / "apart",), (f"file://{tmp_path / 'apart'}",)):
        done = piped(folder, asked, "--sealed", *place)
        assert (done.returncode, done.stdout) == (0, expected)
        assert all("llem: bringing 1 file" in line for line in done.stderr.splitlines())
    nowhere = piped(tmp_path / "no store", asked, "--sealed")
    assert nowhere.returncode == 2 and "nothing is sealed" in nowhere.stderr
    misplaced = piped(folder, asked, tmp_path / "apart")
    assert misplaced.returncode == 2 and "or --sealed PLACE" in misplaced.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (".mode parquet", "llem: .mode: found parquet, expected table, lines, csv, json\n"),
        (".nothing", "llem: no such command: found .nothing; .help lists them"),
        (".schema nobody", "llem: no such table or view: found nobody; .tables lists them\n"),
        ("DROP TABLE windows", "llem: DROP is refused, a query only reads"),
    ],
)
def test_a_wrong_command_in_a_pipe_ends_it(written: str, said: str, folder: Path) -> None:
    """It says what is wrong and what there is, with exit status 2; what follows is not run."""
    done = piped(
        folder, f"{written};\nSELECT 'later'" if " TABLE " in written else f"{written}\nSELECT 'later'"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)


class Person:
    """Types the next words when the terminal shows what they wait for: a text that is new, a fresh prompt, or a query that runs."""

    def __init__(self, *turns: tuple[str, str]) -> None:
        self._turns = list(turns)
        self._before: list[str] = []

    def __call__(self, terminal: Terminal, controller: int) -> None:
        """Type, where it is time to."""
        lines = terminal.lines()
        if self._turns and self._is_there(self._turns[0][0], lines, controller):
            self._before = lines
            os.write(controller, self._turns.pop(0)[1].encode())

    def _is_there(self, awaited: str, lines: list[str], controller: int) -> bool:
        if awaited == PROMPT:
            return lines[-1:] == [PROMPT] and _prompts(lines) > _prompts(self._before)
        if awaited == RUNNING:
            keys_are_signals = termios.tcgetattr(controller)[3] & termios.ISIG
            return bool(keys_are_signals) and lines != self._before
        return "\n".join(lines).count(awaited) > "\n".join(self._before).count(awaited)


def _prompts(lines: Sequence[str]) -> int:
    return sum(line.startswith(PROMPT) for line in lines)


@pytest.fixture
def talk(folder: Path, tmp_path: Path, forked: ForkedLlem) -> Talk:
    """What the screen shows in the end, and the exit status."""

    def started(
        *turns: tuple[str, str], kind: str = "xterm-256color", options: Sequence[str] = ()
    ) -> tuple[str, int]:
        environment = {"PATH": os.environ["PATH"], "TERM": kind, "LANG": "C.UTF-8"}
        environment |= {"XDG_STATE_HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
        terminal, status = on_a_terminal(
            ["shell", "--store", folder, *options],
            environment=environment,
            forked=forked,
            while_running=Person(*turns),
        )
        return "\n".join(terminal.lines()), status

    return started


@pytest.mark.slow
def test_completion_and_a_statement_over_lines(talk: Talk) -> None:
    """Tab completes a name that is the only one, and shows several with their units; Enter goes on until a semicolon."""
    pytest.importorskip("prompt_toolkit")
    screen, status = talk(
        (PROMPT, f"SELECT energy_sour{TAB}"),
        ("energy_source", f"{ENTER}FROM experiment_res{TAB}"),
        ("experiment_results", f" WHERE total_en{TAB}"),
        ("total_energy_j", f" > 0;{ENTER}"),
        (PROMPT, f"SELECT ttft_{TAB}"),
        ("[ms]", CTRL_C),
        (PROMPT, f".schema device{TAB}"),
        (".schema devices", CTRL_C),
        (PROMPT, CTRL_D),
    )
    assert status == 0
    assert "llem> SELECT energy_source\n  ... FROM experiment_results WHERE total_energy_j > 0;" in screen
    assert "\ncounter\n" in screen


@pytest.mark.slow
def test_history_is_kept_for_the_next_shell(talk: Talk, tmp_path: Path) -> None:
    """The arrow brings back what was written before, also by an earlier shell; nobody else may read it."""
    pytest.importorskip("prompt_toolkit")
    talk((PROMPT, f"SELECT 6 * 7 AS answer;{ENTER}"), (PROMPT, CTRL_D))
    screen, status = talk((PROMPT, UP), ("SELECT 6 * 7", ENTER), (PROMPT, f".quit{ENTER}"))
    assert status == 0 and screen.splitlines()[3] == "    42"
    kept = tmp_path / "llem" / "shell_history"
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_ctrl_c_stops_a_query_and_clears_a_line(talk: Talk) -> None:
    """A query without an end is stopped, a line half written is dropped, and the shell goes on."""
    pytest.importorskip("prompt_toolkit")
    screen, status = talk(
        (PROMPT, "SELECT half"),
        ("SELECT half", CTRL_C),
        (PROMPT, f"{ENDLESS}{ENTER}"),
        (RUNNING, CTRL_C),
        (PROMPT, f"SELECT 'goes' || ' on' AS it;{ENTER}"),
        (PROMPT, CTRL_D),
    )
    assert status == 0
    assert screen.count("llem: stopped") == 1 and "\ngoes on\n" in screen


@pytest.mark.slow
def test_errors_end_nothing_and_strangers_drive_no_terminal(talk: Talk) -> None:
    """A wrong statement is told in one line; control characters in a result are shown as marks; a query has its time."""
    pytest.importorskip("prompt_toolkit")
    screen, status = talk(
        (PROMPT, f"SELECT energi FROM windows;{ENTER}"),
        (PROMPT, f"SELECT 'a' || chr(27) || '[31mb' AS red;{ENTER}"),
        (PROMPT, f".mode nonsense{ENTER}"),
        (PROMPT, f"{ENDLESS}{ENTER}"),
        (PROMPT, CTRL_D),
        options=["--timeout", "3"],
    )
    assert status == 0
    assert "\na�[31mb" in screen
    for said in (
        "did you mean",
        "expected table, lines, csv, json",
        "the query took too long and was stopped",
    ):
        assert said in " ".join(screen.split())


@pytest.mark.slow
def test_a_dumb_terminal(talk: Talk) -> None:
    """Plain prompts, no escape sequences, and the same statements over lines."""
    screen, status = talk(
        (PROMPT, "SELECT 6 *\n"), ("  ...", "7 AS answer;\n"), (PROMPT, CTRL_D), kind="dumb"
    )
    assert status == 0
    assert "llem> SELECT 6 *\n  ... 7 AS answer;\n" in screen and "    42" in screen


@pytest.mark.slow
def test_a_whole_session_on_the_screen(talk: Talk, update: bool) -> None:
    """What a newcomer sees at 80 x 24, kept in a file: help, units, a table, a macro over lines, a mode, a mistake."""
    pytest.importorskip("prompt_toolkit")
    screen, status = talk(
        (PROMPT, f".help{ENTER}"),
        (PROMPT, f".schema warnings{ENTER}"),
        (PROMPT, f"SELECT kind, duration_sec, round(energy_j, 1) AS joules FROM windows;{ENTER}"),
        (PROMPT, f"SELECT prefilling, decoding, round(integrated_energy_j, 1) AS joules{ENTER}"),
        ("  ...", f"FROM energy_by_activity('run-1', 5, 15);{ENTER}"),
        (PROMPT, f".mode lines{ENTER}"),
        (PROMPT, f"SELECT name, duration_sec FROM experiment_results;{ENTER}"),
        (PROMPT, f"SELECT energi FROM windows;{ENTER}"),
        (PROMPT, f".quit{ENTER}"),
    )
    if update:
        SESSION.write_text(screen + "\n", encoding="utf-8")
    assert status == 0
    assert screen + "\n" == SESSION.read_text(encoding="utf-8"), "--update-goldens renews it"
