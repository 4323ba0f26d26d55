"""llem export --table and --manifest: any table of chosen runs, and what the file is."""

import hashlib
import json
from pathlib import Path

import duckdb
import pytest

from llem.store import Store
from tests.conftest import Run
from tests.world import experiment

FIRST, SECOND = "20260102-030401-0123456789ab", "20260102-030402-0123456789ab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs, of which the second has a label."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    experiment(store, experiment_id=FIRST)
    experiment(store, experiment_id=SECOND, labels={"kind": "second"})
    return store.path


@pytest.mark.slow
def test_every_table_and_view_of_runs_can_be_exported(llem: Run, folder: Path, tmp_path: Path) -> None:
    """With as many rows as it has, and the same columns."""
    for table in ("windows", "regions", "segments", "raw_process_results", "timed_samples"):
        path = tmp_path / f"{table}.parquet"
        done = llem("export", path, "--table", table, "--store", folder)
        assert done.returncode == 0, done.stderr
        asked = llem("query", f"SELECT count(*) FROM {table}", "-f", "csv", "--store", folder).stdout
        assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(int(asked.split()[1]),)]


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["--label", "kind=second"], [SECOND]),
        (["--runs", "kind=second"], [SECOND]),
        (["--runs", FIRST, "--since", "2000-01-01"], [FIRST]),
        (["--since", "2000-01-01"], [FIRST, SECOND]),
    ],
)
def test_runs_are_chosen_by_label_name_and_time(
    arguments: list[str], runs: list[str], llem: Run, folder: Path
) -> None:
    """For every kind of export."""
    done = llem("export", "-", "-f", "jsonl", *arguments, "--store", folder)
    assert [json.loads(line)["experiment_id"] for line in done.stdout.splitlines()] == runs


def test_a_manifest_says_what_the_file_is(llem: Run, folder: Path, tmp_path: Path) -> None:
    """Its digest, its runs, and every column with unit and meaning."""
    path = tmp_path / "windows.csv"
    done = llem(
        "export", path, "--table", "windows", "--label", "kind=second", "--manifest", "--store", folder
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "windows.csv.manifest.json").read_text())
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (told["table"], told["runs"]) == ("windows", [SECOND])
    assert [column["name"] for column in told["columns"]] == path.read_text().splitlines()[0].split(",")
    assert {"name": "duration_sec", "type": "DOUBLE", "meaning": "[s] length"} in told["columns"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "window"], "no table window of runs: expected one of"),
        (["--table", "folders"], "no table folders of runs: expected one of"),
        (["--table", "windows", "--what", "samples"], "expected one of the two"),
        (["--table", "windows", "--window", "0:1"], "a table is written as it is"),
        (["--label", "kind=third"], "found no such run"),
        (["--since", "yesterday"], "--since"),
    ],
)
def test_what_cannot_be_exported(
    arguments: list[str], said: str, llem: Run, folder: Path, tmp_path: Path
) -> None:
    """Is said in one line, and nothing is written."""
    done = llem("export", tmp_path / "out.csv", *arguments, "--store", folder)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_needs_a_file(llem: Run, folder: Path) -> None:
    """What is printed has no place beside it."""
    done = llem("export", "-", "--manifest", "--store", folder)
    assert done.returncode == 2 and "expected a file's name" in done.stderr
