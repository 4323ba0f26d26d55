"""Columns and rows come from the list of figures: none is forgotten, none is written that there is not."""

import duckdb
import pytest

import llem.projections
from llem.plan import Plan
from llem.projections import catch_up, open_readonly
from llem.projections.database import Tables, create_tables, in_memory
from llem.results.figures import EXPERIMENT_FIGURES, PROCESS_FIGURES, REQUEST_FIGURES
from llem.store import Store
from llem_events.events import Request
from tests.projections.tables import rows
from tests.world import experiment

LISTED = {
    "experiment_results": EXPERIMENT_FIGURES,
    "raw_process_results": PROCESS_FIGURES,
    "requests": REQUEST_FIGURES,
}


@pytest.mark.parametrize("table", LISTED)
def test_a_table_has_the_figures_of_its_list(table: str) -> None:
    """Names, types and comments, in the order of the list."""
    connection = in_memory()
    create_tables(connection)
    found = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
        [table],
    ).fetchall()
    assert found == [(figure.name, figure.type, figure.comment) for figure in LISTED[table]]


@pytest.mark.parametrize("table", ["experiment_results", "raw_process_results"])
@pytest.mark.usefixtures("tables")
def test_no_figure_of_a_full_log_is_null_without_its_reason(table: str, log: Store) -> None:
    """Where a log says everything, a column is NULL only as its comment says that it can be."""
    experiment(log, processes=2, plan=Plan(name="base"), labels={"ticket": "7"})
    catch_up(log)
    explained = {figure.name for figure in LISTED[table] if "NULL" in figure.meaning}
    for row in rows(log, f"FROM {table}"):
        assert {name for name, value in row.items() if value is None} <= explained


def test_every_field_of_a_request_has_its_column() -> None:
    """With the description that the published schema has."""
    fields = [figure.name for figure in REQUEST_FIGURES]
    assert fields[5:] == list(Request.__struct_fields__)
    assert all(figure.meaning for figure in REQUEST_FIGURES)


def test_a_row_with_a_name_that_no_column_has_is_an_error() -> None:
    """It names the column; nothing is inserted."""
    connection = in_memory()
    create_tables(connection)
    with pytest.raises(KeyError, match="table warnings has no column colour, taste"):
        Tables(connection).insert("warnings", [{"code": "a"}, {"code": "b", "taste": 1, "colour": 2}])
    assert connection.execute("SELECT count(*) FROM warnings").fetchall() == [(0,)]


@pytest.mark.slow
def test_a_name_that_nothing_has_is_an_error_and_no_empty_answer(caught_up: Store) -> None:
    """Of every macro that takes an experiment or a study, whether the name sorts before, among or behind those that are there."""
    with open_readonly(caught_up) as tables:
        macros = tables.execute(
            "SELECT function_name, parameters FROM duckdb_functions() WHERE NOT internal"
            " AND function_type = 'table_macro' AND parameters[1] IN ('experiment', 'study')"
        ).fetchall()
        assert len(macros) == 9
        for macro, (kind, *others) in macros:
            moments = ", 0, 1" if "from_sec" in others else ""
            for name in ("@last", "20260102", "zz"):
                with pytest.raises(duckdb.Error, match=f"no {kind} {name} "):
                    tables.execute(f"FROM {macro}('{name}'{moments})")


def test_every_macro_says_what_it_is() -> None:
    """As tables do."""
    connection = in_memory()
    create_tables(connection)
    unsaid = "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND comment IS NULL"
    assert connection.execute(unsaid).fetchall() == []


def test_what_the_package_offers_is_there() -> None:
    """Each name is that of a function or a record, whose module is loaded when it is asked for."""
    offered = {name: getattr(llem.projections, name) for name in llem.projections.__all__}
    assert dir(llem.projections) == llem.projections.__all__ == sorted(offered)
    assert all(value.__name__ == name for name, value in offered.items())
