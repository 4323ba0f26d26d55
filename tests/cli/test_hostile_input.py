"""Input that no text, number or name can be: told in one line with exit status 2, and never written into a store."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llem.store import Store
from tests.conftest import LLEM, SIMULATED, Run, mostly_slow, segments
from tests.world import experiment

BAD = b"\xff"
LONG = "a" * 300

WRONG: dict[str, tuple[list[bytes | str], str]] = {
    "SQL": (["query", b"select " + BAD], "argument 2 is not UTF-8"),
    "store": (["runs", "--store", b"/tmp/" + BAD], "argument 3 is not UTF-8"),
    "parameter": (["query", "select $x", "-p", b"x=" + BAD], "argument 4 is not UTF-8"),
    "run": (["show", BAD], "argument 2 is not UTF-8"),
    "program": (["measure", "--", "true", BAD], "argument 4 is not UTF-8"),
    "endless timeout": (["query", "select 1", "--timeout", "inf"], "--timeout"),
    "no number": (["query", "select 1", "--timeout", "nan"], "--timeout"),
    "huge limit": (["query", "select 1", "--limit", "9" * 30], "--limit"),
    "huge number of runs": (["runs", "--limit", "9" * 30], "--limit"),
    "misspelt format": (
        ["query", "select 1", "-f", "linse"],
        "llem: --format: found 'linse', expected table, lines, csv, json, jsonl, md or parquet; did you mean lines?",
    ),
    "misspelt part": (
        ["show", "--methodology=whole"],
        "llem: --methodology: found 'whole', expected total, steady_state or windowed",
    ),
    "limit of none": (
        ["runs", "--limit", "0"],
        f"llem: --limit: found '0', expected a whole number from 1 to {2**62}",
    ),
    "no whole number": (
        ["log", "recover", "a", "-o", "b", "--limit", "all"],
        "llem: --limit: found 'all', expected a whole number, 0 or more",
    ),
    "too long a timeout": (
        ["query", "select 1", "--timeout", "1e9"],
        "llem: --timeout: found '1e9', expected a number from 0.1 to 2592000",
    ),
    "workers in words": (
        ["measure", "--workers", "two"],
        "llem: --workers: found 'two', expected a whole number",
    ),
    "huge parameter": (["query", "select $x", "-p", "x=" + "1" * 5000], "a whole number of 64 bits"),
    "window without an end": (["show", "--window", "0:inf"], "expected seconds that have an end"),
    "window beyond all clocks": (["show", "--window", "0:1e308"], "have an end"),
    "long name of a file": (["query", "select 1", "-o", f"{LONG}.csv"], "File name too long"),
    "long name of a store": (["query", "select 1", "--store", LONG], "File name too long"),
    "deep setting": (["measure", "--dry-run", "--set", "name=" + "[" * 50_000], "plan key name"),
    "huge number in a setting": (
        ["measure", "--dry-run", "--set", "workload.seed=" + "1" * 5000],
        "workload.seed",
    ),
}


def run(arguments: list[bytes | str], store: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LLEM_DIR": str(store), "NO_COLOR": "1"}
    return subprocess.run(
        [LLEM, *arguments], env=environment, input=stdin, capture_output=True, timeout=120, check=False
    )


def run_in_a_shell(line: str, store: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LLEM_DIR": str(store), "NO_COLOR": "1"}
    return subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one experiment."""
    store = Store(tmp_path_factory.mktemp("hostile") / "store").create()
    experiment(store)
    return store.path


@pytest.mark.parametrize(("arguments", "told"), mostly_slow(WRONG.values(), every=5), ids=WRONG.keys())
def test_wrong_input_is_told(arguments: list[bytes | str], told: str, measured: Path) -> None:
    """Exit status 2, the reason, no traceback, nothing called an internal error."""
    done = run(arguments, measured)
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert told in said
    assert "internal error" not in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("stdin", "told"), [(b"select " + BAD, "not UTF-8"), (b" " * 2**21, "too long")])
def test_sql_on_standard_input(stdin: bytes, told: str, measured: Path) -> None:
    """SQL that is no text, or endless, is refused."""
    done = run(["query", "-"], measured, stdin)
    assert (done.returncode, told in done.stderr.decode()) == (2, True)


@pytest.mark.slow
def test_a_closed_standard_input_holds_no_sql(measured: Path) -> None:
    """Asked to read from it, the query says so."""
    done = run_in_a_shell(f"{LLEM} query - <&-", measured)
    assert (done.returncode, "closed standard input" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rebuild", "export - -f csv", "query --snapshot copy.duckdb"])
def test_a_disk_that_takes_no_tables_is_told(command: str, measured: Path, tmp_path: Path) -> None:
    """What the disk says, and no internal error, where neither the store nor the temporary folder takes tables."""
    fresh = tmp_path / "store"
    shutil.copytree(measured / "log", fresh / "log")
    for blocks in (0, 40):
        done = run_in_a_shell(f"cd {tmp_path}; ulimit -f {blocks}; exec {LLEM} {command}", fresh)
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr and "internal error" not in done.stderr


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    """A store that is named by LLEM_DIR or lies in the working folder is refused where its path is not UTF-8."""
    folder = os.fsencode(tmp_path) + b"/" + BAD
    Path(os.fsdecode(folder)).mkdir()
    environment = {**os.environ, b"LLEM_DIR": folder}
    for env, cwd in ((environment, tmp_path), ({**os.environ}, folder)):
        done = subprocess.run([LLEM, "runs"], env=env, cwd=cwd, capture_output=True, check=False)  # type: ignore[arg-type] # bytes are names too
        assert done.returncode == 2
        assert b"path is not UTF-8" in done.stderr


@pytest.mark.parametrize(
    "command",
    mostly_slow(
        [["query", "select 1", "--force", "-f", "csv", "-o"], ["export", "--force", "-f", "csv"]], every=2
    ),
)
def test_nothing_is_written_into_a_store(command: list[bytes | str], measured: Path, tmp_path: Path) -> None:
    """Neither onto a segment, nor the tables, nor beside them, nor through a link, nor onto a copied segment."""
    (segment, *_) = segments(measured, "worker")
    before = segment.read_bytes()
    copied, link = tmp_path / "copied.csv", tmp_path / "link.csv"
    copied.write_bytes(before)
    link.symlink_to(segment)
    for path in (segment, measured / "projections.duckdb", measured / "new.csv", link, copied):
        done = run([*command, str(path)], measured)
        assert done.returncode == 2, path
        assert b"inside the store" in done.stderr or b"segment of a log" in done.stderr
    assert segment.read_bytes() == copied.read_bytes() == before
    assert not (measured / "new.csv").exists()


@pytest.mark.slow
def test_a_long_name_that_a_file_may_have(measured: Path, tmp_path: Path, llem: Run) -> None:
    """A name of 255 bytes is a name like any other."""
    path = tmp_path / ("a" * 251 + ".csv")
    assert run(["query", "select 1", "-o", str(path)], measured).returncode == 0
    assert path.read_text() == "1\n1\n"


@pytest.mark.slow
def test_a_snapshot_makes_no_store_of_its_folder(measured: Path, tmp_path: Path) -> None:
    """Beside a copy of the tables, whatever its name, other files may be written."""
    snapshot = tmp_path / "projections.duckdb"
    assert run(["query", "--snapshot", str(snapshot)], measured).returncode == 0
    assert run(["query", "select 1", "-o", str(tmp_path / "x.csv")], measured).returncode == 0


def test_a_note_about_a_file_does_not_drive_the_terminal(tmp_path: Path) -> None:
    """A control character in the name of a prompt file is shown as a mark."""
    path = tmp_path / "a\x1b[31mb.jsonl"
    path.write_text('{"prompt": "x", "other": 1}\n')
    prompts = ["--set", f"workload.path={path}", "--set", "workload.requests=1"]
    done = run(["measure", *SIMULATED, *prompts, "--workers", "5"], tmp_path / "store")
    assert "not used: other" in done.stderr.decode() and b"\x1b" not in done.stderr
