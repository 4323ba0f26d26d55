"""Every command as a person sees it, kept as text: `pytest tests/cli/test_screens.py --update-goldens` renews the files.

A golden file has the screen's lines, below each styled line one that begins with `~` and says how, and at last the exit status. A file
NAME.txt is the screen of 80 x 24 in colour; NAME.SIZE.txt and NAME.SIZE.TERMINAL.txt stand beside it only where they differ.
"""

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli import fixed_store
from tests.cli.fixed_store import CALIBRATED, FAILING, INTERRUPTED, NAMED, RELYING, TWO_GPUS, WRAPPED
from tests.cli.terminal import Size, Terminal, on_a_terminal, resize
from tests.conftest import CALM, PROGRESS, QUICK, SIMULATED
from tests.delays import best_of_rounds, delays
from tests.forked import ForkedLlem

GOLDENS = Path(__file__).with_name("screens")
SIZES: dict[str, Size] = {"80x24": (80, 24), "120x40": (120, 40), "200x50": (200, 50)}
TERMINALS = {
    "colour": {"TERM": "xterm-256color"},
    "nocolor": {"TERM": "xterm-256color", "NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
    "c": {"TERM": "xterm-256color", "LANG": "C", "LC_ALL": "C"},
}
USUAL = ("80x24", "colour")
OTHER_KINDS = [kind for kind in itertools.product(SIZES, TERMINALS) if kind != USUAL]
MADE = (
    "measured",
    "imported",
    "collected",
    "sealed",
    "recovered.events.zst",
    "redacted.events.zst",
)  # by commands; removed before each


def as_it_is(text: str) -> str:
    """Every figure is chosen."""
    return text


def masked(text: str) -> str:
    """Digits of what depends on a clock or on the version of zstd, one for one."""
    return re.sub(r"\d", "#", text)


def measured(text: str) -> str:
    """Figures of a real measurement: their number of digits varies too, so that each becomes one mark at the same right edge."""
    text = re.sub("─+", "───", text)
    text = re.sub(r"\b\d{8}-\d{6}-[0-9a-f]{12}\b", "########-######-############", text)
    return re.sub(
        r"( {2,})?-?\d[\d,.]*(?:e[+-]?\d+)?",
        lambda number: "#".rjust(len(number[0]) if number[1] else 1),
        text,
    )


def unfolded(text: str) -> str:
    """How long it took moves the words behind it, so that they are put back on one line."""
    return re.sub(r"\d[\d.,]*", "#", text.replace("\n  ", " "))


def hexadecimal(text: str) -> str:
    """Digests, also where they are folded, depend on the version of zstd and on every default of a plan."""
    return masked(re.sub(r"\b[0-9a-f]{16,64}\b", lambda digest: "#" * len(digest[0]), text))


def names_of_checks(text: str) -> str:
    """What a machine has differs; what is looked at does not."""
    return "\n".join(sorted(set(re.findall(r"^(?:ok  |warn|FAIL|-   )  ([^:]+):", text, re.MULTILINE))))


class Case(NamedTuple):
    """A command, and what of its screen is not the same each time."""

    arguments: list[str]
    mask: Callable[[str], str] = as_it_is


CASES = {
    "help": Case(["--help"]),
    "measure_help": Case(["measure", "--help"]),
    "measure_misspelt": Case(["measure", "--meter", "nvmll"]),
    "measure_dry_run": Case(["measure", "--dry-run", "--engine", "simulated"]),
    "runs": Case(["runs"]),
    "runs_long": Case(["runs", "--long"], masked),
    "runs_none": Case(["runs", "--name", "nobody"]),
    "runs_json": Case(["runs", "--json", "--name", "base"]),
    "runs_damaged": Case(["runs", "--store", "damaged"], masked),
    "study_dry_run": Case(["study", "study.toml", "--dry-run"]),
    "study_without_a_plan": Case(["study"]),
    "studies": Case(["studies"]),
    "watch": Case(["watch", NAMED, "--once"]),
    "watch_two_gpus": Case(["watch", TWO_GPUS, "--once"]),
    "watch_two_meters": Case(["watch", NAMED, "--once", "--store", "meters"]),
    "watch_served": Case(["watch", NAMED, "--once", "--store", "served"]),
    "watch_failing": Case(["watch", FAILING, "--once"]),
    "watch_interrupted": Case(["watch", INTERRUPTED]),
    "watch_wrapped": Case(["watch", WRAPPED, "--once"]),
    "watch_unknown": Case(["watch", "nobody"]),
    "compare": Case(["compare", NAMED, TWO_GPUS]),
    "compare_three": Case(["compare", NAMED, TWO_GPUS, WRAPPED]),
    "compare_one_group": Case(["compare", "site=lab"]),
    "show": Case(["show", NAMED]),
    "show_two_gpus": Case(["show", TWO_GPUS]),
    "show_two_meters": Case(["show", NAMED, "--store", "meters"]),
    "show_served": Case(["show", NAMED, "--store", "served"]),
    "show_failing": Case(["show", FAILING]),
    "show_interrupted": Case(["show", INTERRUPTED]),
    "show_wrapped": Case(["show", WRAPPED]),
    # the last digits of what is fitted depend on the version of numpy
    "show_calibration": Case(["show", CALIBRATED, "--store", "calibrated"], masked),
    "show_calibrated": Case(["show", RELYING, "--store", "calibrated"]),
    "calibrate_help": Case(["calibrate", "--help"]),
    "show_events": Case(["show", NAMED, "--events"], hexadecimal),
    "show_unknown": Case(["show", "nobody"]),
    "query_catalog": Case(["query", "--limit", "12"]),
    "query_table": Case(["query", "windows"]),
    "query_wide": Case(["query", "from experiment_results order by experiment_id"]),
    "query_lines": Case(["query", "devices", "-f", "lines", "--limit", "1"]),
    "query_footprint": Case(
        [
            "query",
            "select experiment_id, facility_energy_j, carbon_g, reason from footprint(g_per_kwh := 381)",
            "-f",
            "lines",
            "--limit",
            "1",
            "--factors",
            "site.toml",
        ]
    ),
    "query_csv": Case(
        ["query", "select experiment_id, name, labels from experiments order by 1", "-f", "csv"]
    ),
    "query_empty": Case(["query", "select 1 as one where false"]),
    "query_cut": Case(["query", "select plan from experiments order by experiment_id limit 1"]),
    "query_list": Case(["query", "--list"]),
    "query_without_quotes": Case(["query", "select", "1"]),
    "query_not_sealed": Case(["query", "--sealed", "meters", "FROM samples"]),
    "query_wrong": Case(["query", "select energi from experiment_results"]),
    "export": Case(["export", "-", "--runs", "base", "-f", "jsonl", "--what", "requests"]),
    "import": Case(["import", "result.json", "wrong.json", "--store", "imported"]),
    "collect": Case(["collect", "store", "damaged", "--into", "collected"], masked),
    "seal": Case(["seal", "--experiment", NAMED, "--to", "sealed"], masked),
    "rebuild": Case(["rebuild"], unfolded),
    "rebuild_damaged": Case(["rebuild", "--check", "--store", "damaged"], unfolded),
    "log_verify": Case(["log", "verify", "--store", "damaged"], masked),
    "log_info": Case(["log", "info", NAMED], masked),
    "log_cat": Case(["log", "cat", NAMED, "--type", "window_opened"]),
    "log_recover": Case(
        ["log", "recover", "damaged/log/segment.events.zst", "-o", "recovered.events.zst"], hexadecimal
    ),
    "log_digest": Case(["log", "digest", NAMED], hexadecimal),
    "doctor": Case(["doctor"], names_of_checks),
    "no_such_command": Case(["mesure"]),
    "no_store": Case(["query", "samples", "--store", "nowhere"]),
}
PROGRAM = ("sh", "-c", "echo mine; sleep 1; exit 3")
MEASURED = {
    "measure": Case(["measure", *SIMULATED, *QUICK, *CALM, "--store", "measured"], measured),
    "measure_wrapped": Case(
        ["measure", "--meter", "simulated", *QUICK, *CALM, "--store", "measured", "--", *PROGRAM], measured
    ),
    "measure_refused": Case(["measure", *SIMULATED, "--set", "workload.requets=3", "--store", "measured"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores that all screens are of; paths on screens are relative to it."""
    folder = tmp_path_factory.mktemp("screens")
    fixed_store.make(folder)
    (damaged,) = (folder / "damaged" / "log" / TWO_GPUS).glob("sampler-*")
    (folder / "damaged" / "log" / "segment.events.zst").write_bytes(damaged.read_bytes())
    return folder


# typer changes how it writes help.
USUAL_CASES = [
    pytest.param(name, marks=pytest.mark.locked) if name.endswith("_help") else name for name in CASES
]


@pytest.mark.parametrize("name", USUAL_CASES)
def test_the_usual_screen(name: str, folder: Path, forked: ForkedLlem, update: bool) -> None:
    """At 80 columns and in colour the command shows what its golden file has."""
    compare(name, USUAL, seen(CASES[name], USUAL, folder, forked), update=update)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "terminal"), OTHER_KINDS)
def test_other_sizes_and_terminals(
    size: str, terminal: str, folder: Path, forked: ForkedLlem, update: bool
) -> None:
    """Wider terminals, without colour, dumb ones and the locale C: what differs from the usual has a golden file of its own."""
    # The encoding is chosen when Python starts, so once every command is started on its own.
    runner = None if (size, terminal) == ("80x24", "c") else forked
    for name, case in CASES.items():
        compare(name, (size, terminal), seen(case, (size, terminal), folder, runner), update=update)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MEASURED)
def test_measurements(name: str, size: str, terminal: str, folder: Path, update: bool) -> None:
    """What a real measurement leaves on the screen, its figures masked."""
    compare(name, (size, terminal), seen(MEASURED[name], (size, terminal), folder, None), update=update)


@pytest.mark.slow
@best_of_rounds
def test_a_terminal_made_narrower_while_it_measures(folder: Path) -> None:
    """The progress line keeps to the width that the terminal has now, and leaves nothing behind."""
    widths: list[int] = []

    def narrow(terminal: Terminal, controller: int) -> None:
        if b"measuring" in terminal.written and not widths:
            widths.append(len(terminal.written))
            terminal.resize(50)
            resize(controller, (50, 24))

    arguments = ["measure", *SIMULATED, *QUICK, "--set", "workload.min_duration_s=2.5", "--store", "measured"]
    shutil.rmtree(folder / "measured", ignore_errors=True)
    terminal, status = on_a_terminal(
        arguments, size=(120, 40), environment=environment("colour"), folder=folder, while_running=narrow
    )
    assert status == 0
    redrawn = [
        part for part in terminal.written[widths[0] :].decode().split("\r\x1b[K") if "measuring" in part
    ]
    with delays():  # this process saw a line before the next was drawn
        assert len(redrawn) >= 2
        assert all(len(line) < 50 for line in redrawn[1:])
        # a number that is cut would be another number
        assert all(line.endswith("…") for line in redrawn[1:])
    assert terminal.lines()[0].startswith("llem: run ")
    assert not any("measuring" in line for line in terminal.lines())


def test_every_golden_file_is_of_a_screen() -> None:
    """No file is left of a command that is not tried any more."""
    names = {path.name.partition(".")[0] for path in GOLDENS.glob("*.txt")}
    assert names == {*CASES, *MEASURED}


def seen(case: Case, kind: tuple[str, str], folder: Path, forked: ForkedLlem | None) -> str:
    """The screen as text."""
    for made in MADE:
        shutil.rmtree(folder / made, ignore_errors=True)
        (folder / made).unlink(missing_ok=True)
    size, chosen = SIZES[kind[0]], environment(kind[1])
    terminal, status = on_a_terminal(
        case.arguments, size=size, environment=chosen, folder=folder, forked=forked
    )
    return drawn(terminal, case.mask) + f"\n[exit {status}]\n"


def drawn(terminal: Terminal, mask: Callable[[str], str]) -> str:
    """The lines, and below each styled one a line of marks."""
    lines = {number: line for number, line in enumerate(terminal.lines()) if not line.startswith(PROGRESS)}
    if mask in (names_of_checks, unfolded):
        return mask("\n".join(lines.values()))
    shown = []
    for number, line in lines.items():
        shown.append(mask(line))
        if styles := terminal.styles(number):
            shown.append(f"~{styles}")
    return "\n".join(shown)


def environment(terminal: str) -> dict[str, str]:
    """What a shell on that terminal hands on."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", "LLEM_DIR": "store", "HF_HUB_OFFLINE": "1", **TERMINALS[terminal]}


def compare(name: str, kind: tuple[str, str], shown: str, *, update: bool) -> None:
    """With what the golden files say, or make them say it."""
    path = golden(name, kind)
    if update:
        renew(name, kind, shown)
        return
    assert path.exists(), f"no screen {path.name}; --update-goldens makes it"
    assert shown == path.read_text(encoding="utf-8"), f"{name} at {kind} differs from {path.name}"


def golden(name: str, kind: tuple[str, str]) -> Path:
    """The file that speaks for this kind of terminal: its own, that of its size, or the usual one."""
    size, terminal = kind
    candidates = [GOLDENS / f"{name}.{size}.{terminal}.txt", GOLDENS / f"{name}.{size}.txt"]
    return next((path for path in candidates if path.exists()), GOLDENS / f"{name}.txt")


def renew(name: str, kind: tuple[str, str], shown: str) -> None:
    """Write the file of this kind, or remove it where a more general one says the same."""
    size, terminal = kind
    suffix = "" if kind == USUAL else f".{size}" if terminal == "colour" else f".{size}.{terminal}"
    own = GOLDENS / f"{name}{suffix}.txt"
    own.unlink(missing_ok=True)
    general = golden(name, kind)
    if not general.exists() or general.read_text(encoding="utf-8") != shown:
        GOLDENS.mkdir(exist_ok=True)
        own.write_text(shown, encoding="utf-8")
