"""The store in a notebook: what the command line tells as tables that can be looked at and handed to other libraries."""

import csv
import html
import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

import llem
from llem.api import OpenStore
from llem.errors import ExportError, LlemError, QueryError, StoreError
from llem.plan import EnginePlan, Plan
from llem.query.result import QueryResult
from llem.store import Store
from tests.conftest import Run
from tests.world import experiment, worker_events

BAD = "<script>alert('&')</script>\x1b[31m"
EVERY_TYPE = """
SELECT n AS big, CASE WHEN n <> 1 THEN n::INTEGER END AS maybe, sum(n) OVER () AS wide, n / 2 AS half, 'x' || n AS name, n = 1 AS is_one, NULL AS never,
       DATE '2026-01-02' AS day, TIMESTAMP '2026-01-02 03:04:05.6' AS at, CASE WHEN n <> 1 THEN INTERVAL 3 SECOND END AS lasted,
       1.10::DECIMAL(9, 2) AS price, [n, NULL] AS list, MAP {'k' || n: n} AS map, {'a b': n, 'c': [MAP {1: 'x'}]} AS struct, 'ab'::BLOB AS bytes,
       '170141183460469231731687303715884105727'::HUGEINT AS huge, '{"a":1}'::JSON AS json, n::UTINYINT AS tiny, [1, 2]::INTEGER[2] AS pair
FROM range(3) r(n) ORDER BY n
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configurations, one of them measured twice, with a label that is markup."""
    store = Store(tmp_path_factory.mktemp("notebook") / "store").create()
    for number, (batch_size, joules) in enumerate([(1, 5_080.0), (1, 5_180.0), (8, 3_080.0)]):
        experiment(
            store,
            experiment_id=f"2026010{number + 1}-000000-00000000000{number}",
            plan=Plan(name=BAD, engine=EnginePlan(batch_size=batch_size)),
            labels={"site": BAD},
            worker=worker_events(counter_j=(1_000.0, joules)),
        )
    llem.open_store(store.path).results()
    return store.path


@pytest.fixture
def store(place: Path) -> OpenStore:
    """The store, opened."""
    return llem.open_store(place)


def test_runs_are_those_of_the_command_line(store: OpenStore, llem: Run) -> None:
    """The same columns and rows as `llem runs --json`, narrowed in the same way."""
    told = json.loads(llem("runs", "--json", "--store", store.path).stdout)
    found = store.runs()
    assert [row["experiment_id"] for row in told] == [row["experiment_id"] for row in found.dicts()]
    assert found.columns == list(told[0]) and len(found) == 3
    assert len(store.runs(limit=1)) == 1 and len(store.runs(name="other*")) == 0
    assert len(store.runs(labels={"site": BAD})) == 3 and len(store.runs(labels={"site": "x"})) == 0
    assert len(store.runs(since="1d")) == 0
    with pytest.raises(QueryError, match="expected a time such as"):
        store.runs(since="yesterday")


def test_tables_are_the_catalog(store: OpenStore) -> None:
    """Every column with its unit and meaning."""
    found = store.tables()
    assert found.columns == ["table", "column", "unit", "meaning", "type"]
    assert ("windows", "energy_j", "J") in {row[:3] for row in found}


def test_nothing_of_the_data_is_markup(store: OpenStore) -> None:
    """Names and labels of strangers are text in every table, and drive no terminal."""
    for table in (
        store.runs(),
        store.results(),
        store.results().table(),
        store.compare("batch_size=1", "batch_size=8"),
    ):
        drawn = table._repr_html_()
        assert "<script" not in drawn and drawn.count("<table>") == 1
    assert html.escape("<script>") in store.runs()._repr_html_()
    assert "\x1b" not in str(store.runs()) and "\\x1b[31m" in str(store.runs())
    page = store.report("batch_size=1", "batch_size=8")._repr_html_()
    assert page.startswith("<iframe sandbox srcdoc=") and page.count("<") == 2 and page.count(">") == 2


def test_results_are_short_to_look_at(store: OpenStore) -> None:
    """A column for each result in a notebook; its repr names them."""
    results = store.results()
    assert repr(results).startswith("<Results: 20260101-000000-000000000000, ") and len(repr(results)) < 120
    assert [result.total_energy_j for result in results] == [4_080.0, 4_180.0, 2_080.0]
    drawn = results._repr_html_()
    assert "<td>total_energy_j</td><td>4080</td><td>4180</td><td>2080</td>" in drawn
    assert llem.open_store(store.path).results([])._repr_html_().startswith("<table>")


def test_a_comparison_is_that_of_the_command_line(store: OpenStore, llem: Run) -> None:
    """The rows of `-f csv`, and what has to be known above them."""
    words = ("batch_size=1", "batch_size=8")
    told = list(csv.reader(llem("compare", *words, "-f", "csv", "--store", store.path).stdout.splitlines()))
    found = store.compare(*words)
    assert found.columns == told[0] and len(found) == len(told) - 1
    assert found.dicts()[1]["ratio"] == pytest.approx(float(told[2][told[0].index("ratio")]))
    assert any("batch_size" in note for note in found.notes)
    assert str(found).startswith(found.notes[0]) and f"<p>{found.notes[0]}</p>" in found._repr_html_()
    for figures in (["mean_power_w"], "mean_power_w"):
        only = store.compare(*words, figures=figures)
        assert [row["figure"] for row in only.dicts()] == ["mean_power_w"]
        # so that comparisons can be put together, whatever is NULL in all rows of one
        assert only.types == found.types and dict(zip(only.columns, only.types, strict=True))["p"] == "DOUBLE"


def test_a_page_and_files(store: OpenStore, llem: Run, tmp_path: Path) -> None:
    """The bytes of `llem report` and `llem export`; what is there is not replaced unasked."""
    words = ("batch_size=1", "batch_size=8")
    page = store.report(*words, output=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page.html and page.runs == 3
    for what in ("results", "raw", "requests"):
        written = store.export(tmp_path / f"{what}.csv", what=what)
        told = llem("export", "-", "--what", what, "--store", store.path).stdout
        assert written.read_text(encoding="utf-8") == told
    one = store.export(tmp_path / "one.jsonl", runs="@last", window=(0.0, 10.0))
    assert one.read_text(encoding="utf-8").count("\n") == 1
    for name in ("report.html", "raw.csv"):
        with pytest.raises(ExportError, match="exists"):
            store.report(*words, output=tmp_path / name) if name == "report.html" else store.export(
                tmp_path / name
            )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda store: store.compare("@last"), "groups to compare: found 1, expected two or more"),
        (lambda store: store.compare("@last", "nothing"), "nothing"),
        (
            lambda store: store.compare("batch_size=1", "batch_size=8", figures=["x"]),
            "figure x: found no such number",
        ),
        (lambda store: store.report("nothing"), "nothing"),
        (lambda store: store.report(output="page.txt"), "expected a name ending in .html"),
        (lambda store: store.export("out.doc"), "no format for out.doc"),
        (
            lambda store: store.export("out.csv", what="all"),
            "what: found 'all', expected results, raw, samples, requests",
        ),
        (
            lambda store: store.export("out.csv", methodology="some"),
            "methodology: found 'some', expected total",
        ),
        (lambda store: store.results("nothing"), "nothing"),
        (lambda store: store.query("SELECT nothing"), "nothing"),
    ],
)
def test_errors_are_those_of_the_command_line(store: OpenStore, ask: object, message: str) -> None:
    """One line, of a kind that a program can catch."""
    assert callable(ask)
    with pytest.raises(LlemError) as caught:
        ask(store)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, QueryError | ExportError | StoreError)


@pytest.fixture(scope="module")
def every_type(place: Path) -> QueryResult:
    """Three rows of everything that DuckDB has a type for."""
    return llem.open_store(place).query(EVERY_TYPE)


def test_pandas(every_type: QueryResult) -> None:
    """Integers with NULL among them stay integers; what pandas has no type for are Python's objects."""
    pandas = pytest.importorskip("pandas")
    frame = every_type.df()
    assert list(frame.columns) == every_type.columns and len(frame) == 3
    types = frame.dtypes.astype(str).to_dict()
    assert (types["big"], types["maybe"], types["half"], types["is_one"]) == (
        "Int64",
        "Int32",
        "float64",
        "boolean",
    )
    assert types["at"] == "datetime64[us]" and types["lasted"] == "timedelta64[us]"
    assert frame["maybe"].isna().tolist() == [False, True, False] and frame["maybe"].sum() == 2
    assert frame["lasted"].isna().tolist() == [False, True, False]
    assert (
        frame["map"][2] == {"k2": 2}
        and frame["price"][0] == Decimal("1.10")
        and frame["list"][1] == [1, None]
    )
    assert frame["huge"][0] == pytest.approx(2.0**127) and frame["day"][0] == date(2026, 1, 2)
    assert isinstance(frame["at"][0], pandas.Timestamp)


def test_polars(every_type: QueryResult) -> None:
    """Every column has the type that it has in DuckDB; a map is a list of its keys and values."""
    polars = pytest.importorskip("polars")
    frame = every_type.pl()
    assert frame.columns == every_type.columns and frame.shape == (3, len(every_type.columns))
    assert frame.schema["maybe"] == polars.Int32 and frame["maybe"].to_list() == [0, None, 2]
    assert frame.schema["wide"] == polars.Int64 and frame.schema["huge"] == polars.Float64
    assert frame["map"].to_list()[2] == [{"key": "k2", "value": 2}]
    assert frame["struct"].to_list()[1] == {"a b": 1, "c": [[{"key": 1, "value": "x"}]]}
    assert frame["at"][0] == datetime(2026, 1, 2, 3, 4, 5, 600_000) and frame["lasted"].to_list()[:2] == [
        timedelta(seconds=3),
        None,
    ]
    assert frame["price"].to_list() == [Decimal("1.10")] * 3 and frame["bytes"][0] == b"ab"


def test_arrow_has_the_types_of_duckdb(every_type: QueryResult) -> None:
    """Maps, structs, lists and times too, and in an empty result."""
    pyarrow = pytest.importorskip("pyarrow")
    table = every_type.arrow()
    assert table.schema.field("maybe").type == pyarrow.int32() and table["maybe"].to_pylist() == [0, None, 2]
    assert table.schema.field("map").type == pyarrow.map_(pyarrow.string(), pyarrow.int64())
    assert table["map"].to_pylist()[2] == [("k2", 2)] and table["tiny"].type == pyarrow.uint8()
    assert table["at"].to_pylist()[0] == datetime(2026, 1, 2, 3, 4, 5, 600_000)
    none = QueryResult(columns=every_type.columns, types=every_type.types, rows=[]).arrow()
    assert none.num_rows == 0 and none.schema == table.schema.set(
        2, pyarrow.field("wide", pyarrow.int64())
    ).set(table.schema.get_field_index("huge"), pyarrow.field("huge", pyarrow.int64()))


@pytest.mark.parametrize(("method", "library"), [("df", "pandas"), ("pl", "polars"), ("arrow", "pyarrow")])
@pytest.mark.slow
def test_results_and_runs_fit_every_library(store: OpenStore, method: str, library: str) -> None:
    """Tables of llem itself: labels, plans, NULL everywhere, and no row at all."""
    pytest.importorskip(library)
    for table in (
        store.runs(),
        store.runs(limit=0),
        store.results().table(),
        store.compare("batch_size=1", "batch_size=8"),
        store.query("FROM experiment_results"),
        store.query("FROM windows"),
        store.query("FROM requests LIMIT 3"),
    ):
        made = getattr(table, method)()
        assert (made.num_columns if method == "arrow" else made.shape[1]) == len(table.columns)
