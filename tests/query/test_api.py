"""The store from Python."""

import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import pytest

import llem
from llem.errors import MissingExtraError, QueryError, StoreError
from llem.query.process import Limits
from llem.store import Store
from tests.world import experiment


def test_a_query_gives_columns_types_and_rows(database: Store) -> None:
    """Values arrive as Python objects of their type."""
    store = llem.open_store(database.path)
    result = store.query(
        "SELECT n, half, name, [n] AS list, 1.10::DECIMAL(4,2) AS price, TIMESTAMP '2026-01-02' AS at, NULL AS none, "
        "MAP {n: 'x'} AS map, 2::HUGEINT ** 3 AS big FROM numbers WHERE n <= $most ORDER BY n",
        {"most": 1},
    )
    assert result.columns == ["n", "half", "name", "list", "price", "at", "none", "map", "big"]
    assert result.types[:3] == ["BIGINT", "DOUBLE", "VARCHAR"]
    assert result.rows[1] == (1, 0.5, "x1", [1], Decimal("1.10"), datetime(2026, 1, 2), None, {1: "x"}, 8.0)
    assert len(result) == 2
    assert [row[0] for row in result] == [0, 1]
    assert result.dicts()[0]["name"] == "x0"


def test_a_limit_is_told(database: Store) -> None:
    """`truncated` says that there was more."""
    store = llem.open_store(database.path)
    assert store.query("FROM numbers", limit=3).truncated
    assert not store.query("FROM few", limit=3).truncated


def test_limits_of_a_query_can_be_chosen(database: Store) -> None:
    """A query that takes longer than its limit raises."""
    with pytest.raises(QueryError, match="took too long"):
        llem.open_store(database.path).query(
            "SELECT count(*) FROM range(1000000000000)", limits=Limits(timeout_s=0.2)
        )


def test_arrow(database: Store) -> None:
    """A pyarrow table where pyarrow is installed."""
    table = llem.open_store(database.path).query("SELECT n, name FROM numbers ORDER BY n LIMIT 2").arrow()
    assert table.to_pydict() == {"n": [0, 1], "name": ["x0", "x1"]}
    assert llem.open_store(database.path).query("SELECT n FROM numbers LIMIT 0").arrow().num_rows == 0


@pytest.mark.parametrize(("method", "library"), [("df", "pandas"), ("pl", "polars")])
def test_a_library_that_is_not_there_is_named(method: str, library: str, database: Store) -> None:
    """A table of a library, or an error that says what to install."""
    result = llem.open_store(database.path).query("SELECT 1 AS a")
    if find_spec(library):
        assert len(getattr(result, method)()) == 1
        return
    with pytest.raises(MissingExtraError, match=f"pip install {library}"):
        getattr(result, method)()


def test_no_store_is_said_at_once(tmp_path: Path) -> None:
    """open_store raises where there is none."""
    with pytest.raises(StoreError, match="no store"):
        llem.open_store(tmp_path / "none")


def test_an_empty_store_has_no_results(database: Store) -> None:
    """No experiment, no result."""
    assert llem.open_store(database.path).results() == []


def test_one_run_needs_no_list(tmp_path: Path) -> None:
    """A text is the name of one experiment, not a list of letters."""
    log = Store(tmp_path / "data").create()
    experiment(log, experiment_id="one")
    experiment(log, experiment_id="two")
    store = llem.open_store(log.path)
    assert [result.experiment_id for result in store.results("two")] == ["two"]
    assert [result.experiment_id for result in store.results(["one", "two"])] == ["one", "two"]


def test_the_package_is_lazy() -> None:
    """`import llem` loads no database, model runtime, numpy or command line; neither do the formats."""
    program = "import sys, llem, llem.export.formats\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert loaded.isdisjoint({"duckdb", "numpy", "torch", "transformers", "typer", "rich", "pynvml"})


def test_unknown_names_are_attribute_errors() -> None:
    """Laziness does not hide a mistake."""
    with pytest.raises(AttributeError, match="nothing"):
        llem.nothing  # noqa: B018
    assert llem.__all__ == ["__version__", "open_store", "region", "report"]
    assert dir(llem) == llem.__all__
    modules = {module.name for module in iter_modules([str(Path(llem.__file__).parent)])}
    assert not modules & set(llem.__all__)  # a module that is imported takes the place of the name


def test_a_result_is_short_to_look_at(database: Store) -> None:
    """repr says how much there is; a notebook draws the first rows, with nothing of the data as markup."""
    result = llem.open_store(database.path).query(
        "SELECT n, '<b>' AS bold, NULL AS none FROM numbers LIMIT 60"
    )
    assert repr(result) == "<QueryResult: 60 rows of 3 columns (n, bold, none)>"
    drawn = result._repr_html_()
    assert drawn.count("<tr>") == 51
    assert "<td>0</td><td>&lt;b&gt;</td><td></td>" in drawn
    assert "and 10 more rows" in drawn
