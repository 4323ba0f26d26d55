"""llem export and llem import, driven from outside."""

import csv
import io
import json
from pathlib import Path

import duckdb
import pytest

from llem.results.figures import EXPERIMENT_FIGURES
from llem.results.predecessor import IMPORTED
from llem.store import Store
from tests.conftest import Run, mostly_slow
from tests.world import experiment

PREDECESSOR = Path(__file__).parent.parent / "export" / "predecessor_result.json"
FIRST_COLUMNS = ["experiment_id", "name", "status", "model_name"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two experiments, one of two processes."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    for processes in (1, 2):
        experiment(store, processes=processes, experiment_id=f"20260102-03040{processes}-0123456789ab")
    return store.path


def export(llem: Run, folder: Path, *arguments: object) -> str:
    """What an export that must succeed prints."""
    done = llem("export", *arguments, "--store", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text: str) -> list[dict[str, str]]:
    """Rows of CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("what", mostly_slow(["results", "raw", "samples", "requests"], every=2))
@pytest.mark.parametrize("suffix", mostly_slow(["csv", "json", "jsonl", "parquet"], every=4))
def test_everything_in_every_format(what: str, suffix: str, llem: Run, folder: Path, tmp_path: Path) -> None:
    """DuckDB reads each file, and each has the same number of rows as the store."""
    path = tmp_path / f"{what}.{suffix}"
    assert export(llem, folder, path, "--what", what) == ""
    table = {"results": "experiment_results", "raw": "raw_process_results"}.get(what, what)
    stored = llem(
        "query", f"SELECT count(*) AS n FROM {table}", "-f", "csv", "--store", folder
    ).stdout.split()[1]
    read = f"read_json('{path}', maximum_object_size=100000000)" if "json" in suffix else f"'{path}'"
    assert duckdb.sql(f"SELECT count(*) FROM {read}").fetchall() == [(int(stored),)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_dash_is_standard_output(llem: Run, folder: Path) -> None:
    """CSV unless another format is named."""
    found = rows(export(llem, folder, "-"))
    assert list(found[0])[:4] == FIRST_COLUMNS
    assert [row["processes"] for row in found] == ["1", "2"]
    assert all(
        row["model_name"] and row["total_energy_j"] and row["engine"] == "transformers" for row in found
    )


def test_a_line_has_the_names_and_figures_of_the_tables(llem: Run, folder: Path) -> None:
    """A column of the export is that of experiment_results."""
    listed = [figure.name for figure in EXPERIMENT_FIGURES if figure.is_exported]
    found = rows(export(llem, folder, "-"))
    stored = rows(llem("query", "FROM experiment_results", "-f", "csv", "--store", folder).stdout)
    assert list(found[0]) == listed
    same = [figure.name for figure in EXPERIMENT_FIGURES if figure.type in ("BIGINT", "DOUBLE", "BOOLEAN")]
    kept = sorted(set(same) - {"start_ns", "end_ns"})
    assert [[row[name] for name in kept] for row in found] == [[row[name] for name in kept] for row in stored]


def test_the_columns_of_the_predecessor_on_request(llem: Run, folder: Path) -> None:
    """--preset llenergymeasure gives its names and its order; the figures are the same."""
    ours, theirs = (
        rows(export(llem, folder, "-")),
        rows(export(llem, folder, "-", "--preset", "llenergymeasure")),
    )
    assert list(theirs[0])[:2] == ["experiment_id", "schema_version"]
    assert [row["energy_raw_j"] for row in theirs] == [row["total_energy_j"] for row in ours]


def test_processes_on_request(llem: Run, folder: Path) -> None:
    """Four more columns per process; an experiment with fewer has empty cells."""
    one, two = rows(export(llem, folder, "-", "--process-breakdown"))
    assert one["process_1_tokens"] == ""
    assert int(two["process_0_tokens"]) + int(two["process_1_tokens"]) == int(two["total_tokens"])


def test_runs_by_prefix_and_last(llem: Run, folder: Path) -> None:
    """--runs takes ids, prefixes and @last."""
    first, last = sorted(path.name for path in (folder / "log").iterdir())
    assert [row["experiment_id"] for row in rows(export(llem, folder, "-", "--runs", "@last"))] == [last]
    assert [row["experiment_id"] for row in rows(export(llem, folder, "-", "--runs", f"{first},{last}"))] == [
        first,
        last,
    ]
    unknown = llem("export", "-", "--runs", "nothing", "--store", folder)
    assert unknown.returncode == 2


@pytest.mark.slow
def test_a_window_chosen_afterwards(llem: Run, folder: Path) -> None:
    """Energy and duration of a window are recomputed; samples and requests are cut to it."""
    whole = rows(export(llem, folder, "-", "--runs", "@last"))[0]
    part = rows(export(llem, folder, "-", "--runs", "@last", "--window", "0.1:0.4"))[0]
    assert part["measurement_methodology"] == "windowed"
    assert (part["steady_state_from_sec"], part["steady_state_to_sec"]) == ("0.1", "0.4")
    assert 0 < float(part["total_energy_j"]) < float(whole["total_energy_j"])
    samples = rows(export(llem, folder, "-", "--what", "samples", "--window", "0.1:0.4"))
    assert samples
    assert all(0.1 <= float(row["at_sec"]) <= 0.4 for row in samples)


def test_an_experiment_without_that_part_is_left_out_and_told(llem: Run, folder: Path) -> None:
    """A short run has no steady state: no row, and a line on stderr for each."""
    done = llem("export", "-", "--methodology", "steady_state", "--store", folder)
    assert rows(done.stdout) == []
    assert done.stderr.count("left out") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out.xls"], ".parquet"),
        (["-", "-f", "parquet"], "name a file"),
        (["-", "--window", "ten"], "FROM:TO"),
        (["/nowhere/out.csv"], "no folder /nowhere"),
        (["/dev/null"], "no format"),
        (["/dev/null", "-f", "csv", "--force"], "not a file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(arguments: list[str], said: str, llem: Run, folder: Path) -> None:
    """Refused before anything is read."""
    done = llem("export", *arguments, "--store", folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


def test_a_file_is_replaced_only_with_force(llem: Run, folder: Path, tmp_path: Path) -> None:
    """An existing file stays without --force."""
    path = tmp_path / "out.csv"
    path.write_text("mine")
    refused = llem("export", path, "--store", folder)
    assert (refused.returncode, path.read_text()) == (2, "mine")
    export(llem, folder, path, "--force")
    assert path.read_text().startswith("experiment_id,")


@pytest.mark.slow
def test_an_export_can_be_imported_and_exported_again(llem: Run, folder: Path, tmp_path: Path) -> None:
    """A result in JSON goes into another store and out again with the same figures; nobody's word that it is valid is taken."""
    for line in export(llem, folder, "-", "-f", "jsonl").splitlines():
        path = tmp_path / f"{json.loads(line)['experiment_id']}.json"
        path.write_text(line)
    other = tmp_path / "other"
    assert llem("import", *sorted(tmp_path.glob("*.json")), "--store", other).returncode == 0
    before, after = rows(export(llem, folder, "-")), rows(export(llem, other, "-"))
    # both began in one second, and an imported run's id tells no more of when it began
    assert sorted(map(str, map(figures, after))) == sorted(map(str, map(figures, before)))
    assert {row["valid"] for row in before} == {"true"} and {row["valid"] for row in after} == {""}
    assert all(IMPORTED in row["warnings"] for row in after)


def figures(row: dict[str, str]) -> dict[str, str]:
    """All but what names the experiment, its verdict, and the warning that it is imported."""
    other = ("experiment_id", "labels", "valid", "warnings")
    return {name: cell for name, cell in row.items() if name not in other}
