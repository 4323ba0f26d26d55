"""llem query, driven from outside: formats, files, parameters, errors."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest

from llem.cli.table import write_lines
from llem.query.statements import saved_queries
from llem.store import Store
from tests.cli import terminal
from tests.conftest import LLEM, Run, mostly_slow, quiet
from tests.forked import ForkedLlem
from tests.world import experiment

ALL_TYPES = (
    "SELECT 9223372036854775807 AS big, 1.10::DECIMAL(10,2) AS price, [1, NULL] AS list, MAP {'k': 0.0} AS map, "
    "TIMESTAMP '2026-01-02 03:04:05' AS at, 'nan'::DOUBLE AS nan, '-inf'::DOUBLE AS low, NULL AS nothing, 0.0::DOUBLE AS zero, "
    "170141183460469231731687303715884105727 AS huge, '{\"a\": 1}'::JSON AS doc"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one experiment."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    experiment(store, labels={"site": "lab"})
    return store.path


def answer(llem: Run, folder: Path, *arguments: object) -> str:
    """What a query that must succeed prints."""
    done = llem("query", *arguments, "--store", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_table_is_the_same_in_a_pipe(llem: Run, folder: Path) -> None:
    """A pipe changes neither the format nor the rows."""
    lines = answer(llem, folder, "SELECT 1 AS a, 'x' AS b").split("\n")
    assert [line.split() for line in lines if line.strip()] == [["a", "b"], ["────"], ["1", "x"]]


def test_lines_show_one_column_a_line(llem: Run, folder: Path) -> None:
    """What is too wide for a table is readable, whole, at any width."""
    sql = "SELECT range AS n, 'a' || chr(10) || repeat('b', 300) AS text, NULL AS nothing FROM range(2)"
    row = "n        {}\ntext     a\\n" + "b" * 300 + "\nnothing\n"
    assert answer(llem, folder, sql, "-f", "lines") == row.format(0) + "\n" + row.format(1)


def test_csv_of_every_type(llem: Run, folder: Path) -> None:
    """NULL is an empty cell, a zero is a zero, lists and maps are JSON in one cell."""
    (row,) = csv.DictReader(io.StringIO(answer(llem, folder, ALL_TYPES, "-f", "csv")))
    assert row == {
        "big": "9223372036854775807",
        "price": "1.10",
        "list": "[1,null]",
        "map": '{"k":0.0}',
        "at": "2026-01-02T03:04:05",
        "nan": "nan",
        "low": "-inf",
        "nothing": "",
        "zero": "0.0",
        "huge": "170141183460469231731687303715884105727",
        "doc": '{"a": 1}',
    }


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_of_every_type(form: str, llem: Run, folder: Path) -> None:
    """NULL is null, numbers keep all digits, JSON in a column is JSON in the result."""
    found = json.loads(answer(llem, folder, ALL_TYPES, "-f", form))
    row = found[0] if form == "json" else found
    assert row == {
        "big": 9223372036854775807,
        "price": 1.10,
        "list": [1, None],
        "map": {"k": 0.0},
        "at": "2026-01-02T03:04:05",
        "nan": "NaN",
        "low": "-Infinity",
        "nothing": None,
        "zero": 0.0,
        "huge": 170141183460469231731687303715884105727,
        "doc": {"a": 1},
    }


def test_markdown(llem: Run, folder: Path) -> None:
    """A table that GitHub shows."""
    assert (
        answer(llem, folder, "SELECT 1 AS a, 'x|y' AS b", "-f", "md")
        == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"
    )


@pytest.mark.slow
def test_parquet_keeps_types(llem: Run, folder: Path, tmp_path: Path) -> None:
    """DuckDB writes the file; nothing else is needed."""
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    answer(llem, folder, "SELECT $n AS n, 1.5::DECIMAL(4,1) AS d, [1] AS l", "-p", "n=7", "-o", path)
    table = pyarrow.parquet.read_table(path)
    assert [str(field.type) for field in table.schema][1:] == ["decimal128(4, 1)", "list<element: int32>"]
    assert table.to_pylist()[0]["n"] == 7
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_needs_a_file(llem: Run, folder: Path) -> None:
    """A binary file is not for a screen."""
    done = llem("query", "SELECT 1", "-f", "parquet", "--store", folder)
    assert done.returncode == 2
    assert "-o FILE" in done.stderr


def test_the_files_name_says_the_format(llem: Run, folder: Path, tmp_path: Path) -> None:
    """-o rows.jsonl writes JSON lines."""
    path = tmp_path / "rows.jsonl"
    assert answer(llem, folder, "SELECT 1 AS a", "-o", path) == ""
    assert path.read_text() == '{"a":1}\n'


def test_a_file_is_replaced_only_with_force(llem: Run, folder: Path, tmp_path: Path) -> None:
    """Refused before the query runs; with --force the old file gives way to a whole new one."""
    path = tmp_path / "rows.csv"
    path.write_text("mine")
    refused = llem("query", "SELECT 1 AS a", "-o", path, "--store", folder)
    assert (refused.returncode, path.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    answer(llem, folder, "SELECT 1 AS a", "-o", path, "--force")
    assert path.read_bytes() == b"a\n1\n"


def test_a_failed_query_leaves_the_file(llem: Run, folder: Path, tmp_path: Path) -> None:
    """A query that fails half way replaces nothing and leaves nothing."""
    path = tmp_path / "rows.csv"
    path.write_text("mine")
    sql = "SELECT CASE WHEN range < 100000 THEN range ELSE error('half way') END FROM range(200000)"
    done = llem("query", sql, "-o", path, "--force", "--store", folder)
    assert (done.returncode, path.read_text(), list(tmp_path.glob("rows*"))) == (2, "mine", [path])


PARAMETERS = {
    "5": 5,
    "-1.5": -1.5,
    "1e3": 1000.0,
    "true": True,
    "null": None,
    "abc": "abc",
    "'5'": "5",
    "007": "007",
    "a=b": "a=b",
}


def test_parameters_are_typed(llem: Run, folder: Path) -> None:
    """-p name=value binds a number, a truth value, NULL or text."""
    names = [f"x{number}" for number in range(len(PARAMETERS))]
    chosen = [word for name, text in zip(names, PARAMETERS, strict=True) for word in ("-p", f"{name}={text}")]
    sql = "SELECT " + ", ".join(f"${name} AS {name}" for name in names)
    (row,) = json.loads(answer(llem, folder, sql, *chosen, "-f", "json"))
    assert row == dict(zip(names, PARAMETERS.values(), strict=True))
    assert [type(value) for value in row.values()] == [type(value) for value in PARAMETERS.values()]


def test_a_parameter_is_never_sql(llem: Run, folder: Path) -> None:
    """What looks like SQL in a value stays text."""
    text = "'; DROP TABLE samples; --"
    assert json.loads(answer(llem, folder, "SELECT $x AS x", "-p", f"x={text}", "-f", "json")) == [
        {"x": text}
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    mostly_slow(
        [
            (["SELECT $x"], "parameter $x has no value"),
            (["SELECT 1", "-p", "x=1"], "parameter x is not in the SQL"),
            (["SELECT 1", "-p", "x"], "expected name=value"),
            (["SELEC 1"], 'syntax error at or near "SELEC" at line 1, column 1'),
            (["SELECT\n  energi FROM experiment_results"], "at line 2, column 3; did you mean"),
            (["FROM sampels"], "did you mean samples"),
            (["FROM nosuch"], "nosuch does not exist at line 1, column 6; `llem query` lists the tables"),
            (
                ["SELECT", "count(*)", "FROM", "samples"],
                "found 4 words, expected one; quotes keep a statement whole",
            ),
            (["--sealed", "a", "SELECT", "1"], "found 3 words, expected a place and one statement"),
            (["DELETE FROM samples"], "DELETE is refused, a query only reads"),
            (["SELECT 1; SELECT 2"], "found 2 statements"),
            (["--saved", "nothing"], "energy_per_token"),
            (["--saved", "repeats", "SELECT 1"], "one of them"),
            (["SELECT 1", "-o", "/nowhere/x.csv"], "no folder /nowhere"),
            (["SELECT 1", "-o", "x.xls"], "-f"),
            (
                [
                    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
                    "--timeout",
                    "0.5",
                ],
                "--timeout",
            ),
        ],
        every=3,
    ),
)
def test_wrong_input_is_one_line_and_exit_2(arguments: list[str], said: str, llem: Run, folder: Path) -> None:
    """What is wrong, where, and what to try; no traceback."""
    done = llem("query", *arguments, "--store", folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


def test_sql_from_standard_input(folder: Path) -> None:
    """- reads the statement from stdin."""
    done = subprocess.run(
        [LLEM, "query", "-", "-f", "csv", "--store", folder],
        input="SELECT 5 AS five",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["five", "5"]


def test_limit_says_that_there_is_more(llem: Run, folder: Path) -> None:
    """Rows that a limit left out are told on stderr; the data stays clean."""
    done = llem("query", "SELECT range AS n FROM range(5)", "--limit", 2, "-f", "csv", "--store", folder)
    assert done.stdout.splitlines() == ["n", "0", "1"]
    assert "there are more rows" in done.stderr
    exact = llem("query", "SELECT range AS n FROM range(2)", "--limit", 2, "-f", "csv", "--store", folder)
    assert exact.stderr == ""


def test_without_sql_it_lists_tables_columns_and_units(llem: Run, folder: Path) -> None:
    """Every column of every table, with its unit and meaning."""
    rows = json.loads(answer(llem, folder, "-f", "json"))
    power = next(row for row in rows if (row["table"], row["column"]) == ("samples", "power_w"))
    assert (power["type"], power["unit"], power["meaning"]) == ("DOUBLE", "W", "power")
    assert {"experiments", "experiment_results", "requests", "segments"} <= {row["table"] for row in rows}
    view = next(row for row in rows if (row["table"], row["column"]) == ("timed_samples", "power_w"))
    assert (view["unit"], view["meaning"]) == ("W", "power")
    assert all(row["unit"] or row["meaning"] for row in rows)


def test_throttle_reasons_have_names(llem: Run, folder: Path) -> None:
    """NVML's bit mask as a list of reasons; NULL where the driver does not tell."""
    sql = "SELECT throttle_names(12) AS both, throttle_names(0) AS no, throttle_names(NULL) AS unknown"
    found = json.loads(answer(llem, folder, sql, "-f", "json"))
    assert found == [{"both": ["software power cap", "hardware slowdown"], "no": [], "unknown": None}]


@pytest.mark.parametrize("query", mostly_slow(saved_queries(), every=3), ids=lambda query: query.name)
def test_saved_queries_run(query: object, llem: Run, folder: Path) -> None:
    """Every query that ships is described and runs."""
    assert query.description.endswith(".")  # type: ignore[attr-defined]
    answer(llem, folder, "--saved", query.name, "-f", "csv")  # type: ignore[attr-defined]


def test_a_time_with_a_zone_is_shown_or_told(llem: Run, folder: Path) -> None:
    """DuckDB 1 needs pytz to hand it to Python, and the line says what to do without; DuckDB 2 does not."""
    done = llem("query", "SELECT now()", "--store", folder)
    if done.returncode:
        assert (done.returncode, done.stdout) == (2, "") and "cast it" in done.stderr
    else:
        assert "+00:00" in done.stdout


@pytest.mark.parametrize(
    ("question", "figure"),
    mostly_slow(
        [
            (["--saved", "energy_per_token"], "energy_per_output_token_j"),
            (["--saved", "repeats"], "mean_j"),
            (["--saved", "slowest_requests"], "median_e2e_ms"),
            (["energy_per_token"], "energy_per_output_token_j"),
            (["request_energies"], "energy_allocated_j"),
        ],
        every=3,
    ),
)
def test_the_figure_asked_for_is_on_a_narrow_screen(
    question: list[str], figure: str, folder: Path, environment: dict[str, str], forked: ForkedLlem
) -> None:
    """Whatever has no room in 80 columns, what a query or a view is named for has."""
    arguments = ["query", *question, "--store", folder]
    narrow = {name: text for name, text in environment.items() if name != "COLUMNS"}
    screen, status = terminal.on_a_terminal(arguments, environment=narrow, forked=forked)
    assert status == 0
    assert figure in screen.lines()[0].split()


def test_saved_queries_are_listed(llem: Run, folder: Path) -> None:
    """By name, with what they answer."""
    listed = answer(llem, folder, "--list")
    assert all(query.name in listed and query.description in listed for query in saved_queries())


def test_a_formula_in_csv_is_neutralised_unless_asked(llem: Run, folder: Path) -> None:
    """Text only: the negative number stays a number."""
    sql = "SELECT '=1+1' AS text, -1 AS number"
    assert answer(llem, folder, sql, "-f", "csv").splitlines()[1] == "'=1+1,-1"
    assert answer(llem, folder, sql, "-f", "csv", "--raw-csv").splitlines()[1] == "=1+1,-1"
    assert json.loads(answer(llem, folder, sql, "-f", "json"))[0]["text"] == "=1+1"


def test_duplicate_names_are_numbered(llem: Run, folder: Path) -> None:
    """No value is lost in an object with one key."""
    assert json.loads(answer(llem, folder, "SELECT 1 AS a, 2 AS a", "-f", "json")) == [{"a": 1, "a_1": 2}]


def test_a_reader_that_stops_early_is_no_error(folder: Path) -> None:
    """`llem query ... | head -1` ends quietly."""
    command = f"{LLEM} query 'SELECT * FROM range(1000000)' -f csv --store {folder} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout, quiet(done).stderr) == ("range\n", "")


def test_lines_break_no_word_on_a_terminal() -> None:
    """What is longer than the terminal is wide goes on below itself; a pipe gets one line."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, pipe = Screen(), io.StringIO()
    for out in (screen, pipe):
        write_lines(out, ["name", "reason"], [("a", "none was measured " * 10)])
    _, *folded = screen.getvalue().splitlines()
    assert len(folded) > 1 and folded[0].startswith("reason  none was")
    assert all(line.startswith(" " * len("reason  ")) for line in folded[1:])
    assert " ".join(" ".join(folded).split()) == "reason " + ("none was measured " * 10).strip()
    assert pipe.getvalue().count("\n") == 2
