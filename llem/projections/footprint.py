"""Factors put where the macro footprint() looks for them: temporary tables of one connection, over the views of the same names."""

from collections.abc import Sequence

import duckdb
import msgspec

from llem.factors import Factors
from llem.results.figures import Figure
from llem_events.events import StatedFactor, StatedIntensity

FIGURES: tuple[Figure[None], ...] = (
    Figure(
        "facility_energy_j",
        "DOUBLE",
        "J",
        "energy of the whole site",
        shown="energy of the site",
        better="lower",
    ),
    Figure("carbon_g", "DOUBLE", "g", "carbon of that energy", shown="carbon", better="lower"),
    Figure("carbon_low_g", "DOUBLE", "g", "the least that it may be", shown="carbon, at least"),
    Figure("carbon_high_g", "DOUBLE", "g", "the most that it may be", shown="carbon, at most"),
    Figure(
        "embodied_carbon_g",
        "DOUBLE",
        "g",
        "carbon of making the hardware",
        shown="carbon, embodied",
        better="lower",
    ),
    Figure("water_l", "DOUBLE", "L", "water", shown="water", better="lower"),
    Figure(
        "cost", "DOUBLE", "", "cost of that energy, in the price's currency", shown="cost", better="lower"
    ),
    *(
        Figure(
            f"{name}_per_{per}{suffix}",
            "DOUBLE",
            unit,
            f"{what} per {words}",
            shown=f"{what} per {words}",
            better="lower",
        )
        for per, words in (("1000_tokens", "1,000 output tokens"), ("request", "request"))
        for name, suffix, unit, what in (
            ("facility_energy", "_j", "J", "energy of the site"),
            ("carbon", "_g", "g", "carbon"),
            ("cost", "", "", "cost"),
        )
    ),
)
"""Columns of footprint() that can be compared, from run to run."""


def state(connection: duckdb.DuckDBPyConnection, factors: Factors) -> None:
    """Let footprint() of this connection reckon with them; nothing is written."""
    _fill(connection, "factors", factors.stated, StatedFactor)
    _fill(connection, "hourly_factors", factors.hourly, StatedIntensity)


def _fill(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    rows: Sequence[msgspec.Struct],
    kind: type[msgspec.Struct],
) -> None:
    connection.execute(f"CREATE TEMP TABLE {table} AS FROM {table}")
    columns = [[getattr(row, name) for row in rows] for name in kind.__struct_fields__]
    connection.execute(f"INSERT INTO temp.{table} SELECT {', '.join(['unnest(?)'] * len(columns))}", columns)
