"""The macro footprint(): an energy times what a site states of itself, and nothing where either is missing."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from llem.errors import QueryError
from llem.factors import read_factors
from llem.projections import database, footprint
from llem.projections.current import open_caught_up
from llem.query.process import running
from llem.store import Store
from tests.world import CLOSED_S, OPENED_S, run_of_energy

ENERGY_J = 550.0
RUN = "20260102-030400-000000000000"
SITE = '[site]\npue = 1.5\nlow = 1.2\nhigh = 2\nsource = "S"\ndate = "2025"\n'
GRID = '[grid]\nbasis = "direct"\nmethod = "location, yearly average"\nsource = "S"\ndate = "2025"\n'
OTHERS = """
[price]\nper_kwh = 0.3\ncurrency = "EUR"\nsource = "S"\ndate = "2025"
[water]\nl_per_kwh = 1.8\nsource = "S"\ndate = "2025"
[embodied]\nkg = 150\nlifetime_h = 40_000\nshare = 0.5\nsource = "S"\ndate = "2025"
"""
KWH = ENERGY_J / 3.6e6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run of 550 J."""
    store = Store(tmp_path_factory.mktemp("footprint") / "store").create()
    run_of_energy(store, ENERGY_J / 4_000, experiment_id=RUN)
    return store


def footprints(store: Store, folder: Path, factors: str | None, call: str = "footprint()") -> dict[str, Any]:
    """The run's row."""
    with open_caught_up(store, print) as connection:
        if factors is not None:
            (folder / "factors.toml").write_text(factors)
            footprint.state(connection, read_factors(folder / "factors.toml"))
        return row_of(connection, f"FROM {call}")


def row_of(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    (row,) = cursor.fetchall()
    return dict(zip(names, row, strict=True))


def test_a_site_needs_more_than_its_devices(store: Store, tmp_path: Path) -> None:
    """550 J are 825 J with a PUE of 1.5; what nobody stated is NULL and named."""
    row = footprints(store, tmp_path, None, "footprint(pue := 1.5)")
    assert (row["total_energy_j"], row["facility_energy_j"]) == (550, 825)
    assert {
        row[name] for name in ("carbon_g", "cost", "water_l", "embodied_carbon_g", "cost_per_request")
    } == {None}
    assert row["reason"] == "not given: g_per_kwh, price_per_kwh, l_per_kwh, embodied_g_per_h"


def test_all_factors(store: Store, tmp_path: Path) -> None:
    """Each figure by hand; bounds of carbon are those of the grid and of the site together."""
    grid = GRID.replace("[grid]", "[grid]\ng_per_kwh = 400\nlow = 300\nhigh = 500")
    row = footprints(store, tmp_path, SITE + grid + OTHERS)
    kwh = 1.5 * KWH
    assert row["carbon_g"] == pytest.approx(kwh * 400)
    assert (row["carbon_low_g"], row["carbon_high_g"]) == pytest.approx((1.2 * KWH * 300, 2 * KWH * 500))
    assert (row["cost"], row["currency"], row["water_l"]) == (
        pytest.approx(kwh * 0.3),
        "EUR",
        pytest.approx(kwh * 1.8),
    )
    assert row["embodied_carbon_g"] == pytest.approx(1.875 * (CLOSED_S - OPENED_S) / 3600)
    with open_caught_up(store, print) as connection:
        tokens, requests = connection.execute(
            "SELECT output_tokens, requests FROM experiment_results"
        ).fetchall()[0]
    assert row["facility_energy_per_1000_tokens_j"] == pytest.approx(825_000 / tokens)
    assert row["carbon_per_request_g"] == pytest.approx(kwh * 400 / requests)
    assert row["reason"] is None


def test_an_argument_takes_a_factors_place(store: Store, tmp_path: Path) -> None:
    """And its bounds, which were of another figure, are gone."""
    row = footprints(store, tmp_path, SITE, "footprint(pue := 1, g_per_kwh := 100)")
    assert (row["facility_energy_j"], row["carbon_g"]) == (550, pytest.approx(KWH * 100))
    assert (row["carbon_low_g"], row["carbon_high_g"]) == (None, None)


def test_without_a_pue_nothing_is_known_of_the_site(store: Store, tmp_path: Path) -> None:
    """A PUE of 1 is a statement too, and nobody made it."""
    row = footprints(store, tmp_path, OTHERS, "footprint(g_per_kwh := 100)")
    assert (row["facility_energy_j"], row["carbon_g"], row["cost"]) == (None, None, None)
    assert row["reason"] == "not given: pue"


def test_carbon_by_the_hour_weighs_with_power(store: Store, tmp_path: Path) -> None:
    """The samples' wall clock says which row of the table is meant; a table that ends too early gives nothing."""
    hourly = SITE + GRID + '[[grid.hourly]]\nfile = "hours.csv"\n'
    hours = tmp_path / "hours.csv"
    hours.write_text("time,g_per_kwh\n2023-11-14T22:13:20Z,100\n2023-11-14T22:13:40Z,300\n")
    row = footprints(store, tmp_path, hourly)
    assert 1.5 * KWH * 195 < row["carbon_g"] < 1.5 * KWH * 250
    assert row["carbon_low_g"] == pytest.approx(row["carbon_g"] / 1.5 * 1.2)
    assert footprints(store, tmp_path, hourly, "footprint(g_per_kwh := 100)")["carbon_g"] == pytest.approx(
        1.5 * KWH * 100
    )
    hours.write_text("time,g_per_kwh\n2023-11-14T21:13:40Z,300\n")
    row = footprints(store, tmp_path, hourly)
    assert (row["facility_energy_j"], row["carbon_g"]) == (825, None)
    assert "all hours of the measurement in [[grid.hourly]]" in row["reason"]
    assert row["reason"].startswith("not given: all hours")


def asked(store: Store, sql: str, factors: Path | None = None) -> list[Any]:
    with running(sql, store=store, factors=factors) as result:
        return list(result.rows())


@pytest.mark.slow
def test_factors_change_nothing_that_was_measured(store: Store, tmp_path: Path) -> None:
    """No figure, no hash and no byte of the tables; a file that nobody asks for is not even read."""
    (tmp_path / "factors.toml").write_text(SITE)
    rows = "SELECT r, e FROM experiment_results r JOIN experiments e USING (experiment_id)"
    before, tables = asked(store, rows), store.projections_path.read_bytes()
    assert asked(store, "SELECT facility_energy_j FROM footprint()", tmp_path / "factors.toml") == [(825.0,)]
    assert asked(store, rows, tmp_path / "factors.toml") == before
    assert store.projections_path.read_bytes() == tables
    beside = store.path.parent / "factors.toml"
    beside.write_text("wrong")
    try:
        assert asked(store, rows) == before
        with pytest.raises(QueryError, match="is not TOML"):
            asked(store, "FROM footprint()")
    finally:
        beside.unlink()


def test_figures_that_are_compared_are_columns_of_the_macro() -> None:
    """With their types, and units that their names end with; less of each is better, and of bounds nothing is."""
    with database.in_memory() as connection:
        connection.execute(database.SCHEMA_SQL)
        described = connection.execute("DESCRIBE FROM footprint()").fetchall()
    types = {name: kind for name, kind, *_ in described}
    for figure in footprint.FIGURES:
        assert types[figure.name] == figure.type == "DOUBLE"
        assert figure.name.endswith(
            f"_{figure.unit.lower()}" if figure.unit else ("cost", "_tokens", "_request")
        )
        assert figure.better == (None if figure.name in ("carbon_low_g", "carbon_high_g") else "lower")
    assert {figure.name: figure.shown for figure in footprint.FIGURES} == {
        "facility_energy_j": "energy of the site",
        "carbon_g": "carbon",
        "carbon_low_g": "carbon, at least",
        "carbon_high_g": "carbon, at most",
        "embodied_carbon_g": "carbon, embodied",
        "water_l": "water",
        "cost": "cost",
        "facility_energy_per_1000_tokens_j": "energy of the site per 1,000 output tokens",
        "carbon_per_1000_tokens_g": "carbon per 1,000 output tokens",
        "cost_per_1000_tokens": "cost per 1,000 output tokens",
        "facility_energy_per_request_j": "energy of the site per request",
        "carbon_per_request_g": "carbon per request",
        "cost_per_request": "cost per request",
    }


def test_an_estimate_keeps_its_word() -> None:
    """And what has no energy, token or request has no footprint of these."""
    with database.in_memory() as connection:
        connection.execute(database.SCHEMA_SQL)
        connection.execute(
            "INSERT INTO experiment_results (experiment_id, energy_source, total_energy_j, output_tokens, requests) "
            "VALUES ('a', 'estimated', 550, 10, 1), ('b', NULL, NULL, 0, NULL)"
        )
        rows = connection.execute(
            "SELECT energy_source, facility_energy_j, reason FROM footprint(pue := 1.5)"
        ).fetchall()
    assert rows[0][:2] == ("estimated", 825)
    assert rows[1][:2] == (None, None)
    assert rows[1][2].startswith("no energy was measured; not given: g_per_kwh")
    assert rows[1][2].endswith("; no output tokens; no requests")
