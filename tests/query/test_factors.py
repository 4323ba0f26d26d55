"""`factors.toml`: what it may state, and the error for anything else."""

import re
from pathlib import Path

import pytest

from llem.errors import QueryError
from llem.factors import Factors, factors_for, read_factors

GRID = '[grid]\ng_per_kwh = 381\nlow = 330\nhigh = 420\nbasis = "life cycle"\nmethod = "location, yearly average"\nsource = "S"\ndate = 2024-05-01\n'
SITE = '[site]\npue = 1.5\nsource = "S"\ndate = "2025"\n'
HOURLY = '[grid]\nbasis = "direct"\nmethod = "hourly"\nsource = "S"\ndate = "2025"\n[[grid.hourly]]\nfile = "hours.csv"\n'


def stated(folder: Path, text: str, hours: str | None = None) -> Factors:
    (folder / "factors.toml").write_text(text)
    if hours is not None:
        (folder / "hours.csv").write_text(hours)
    return read_factors(folder / "factors.toml")


def test_each_section_is_a_row(tmp_path: Path) -> None:
    """With its unit, what it is of, who says it and when; what making the hardware emitted is spread over its lifetime."""
    embodied = '[embodied]\nkg = 100\nlow = 50\nhigh = 200\nlifetime_h = 40_000\nshare = 0.5\nsource = "S"\ndate = "2025"\n'
    grid, site, hardware = stated(tmp_path, GRID + SITE + embodied).stated
    assert (grid.factor, grid.value, grid.low, grid.high, grid.unit) == ("g_per_kwh", 381, 330, 420, "g/kWh")
    assert (grid.basis, grid.date) == ("life cycle, location, yearly average", "2024-05-01")
    assert (site.factor, site.value, site.low) == ("pue", 1.5, None)
    assert (hardware.value, hardware.low, hardware.unit) == (1.25, 0.625, "g/h")


def test_the_examples_for_people_can_be_read(tmp_path: Path) -> None:
    """Those of docs/footprint.md, with their table."""
    page = (Path(__file__).parents[2] / "docs" / "footprint.md").read_text(encoding="utf-8")
    yearly, hourly = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(stated(tmp_path, yearly).stated) == 5
    (tmp_path / "DE-2026.csv").write_text(
        "\n".join(re.findall(r"^    (time,.*|2026-.*)$", page, re.MULTILINE))
    )
    assert len(stated(tmp_path, hourly).hourly) == 2


def test_a_file_beside_the_store_is_taken(tmp_path: Path) -> None:
    """Unless another is named; without any there are no factors."""
    store = tmp_path / "llem-data"
    assert factors_for(store, None) is None
    stated(tmp_path, SITE)
    assert factors_for(store, None) == read_factors(tmp_path / "factors.toml")
    with pytest.raises(QueryError, match="cannot be read: found No such file"):
        factors_for(store, tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "factors: found none, expected .grid., .site."),
        ("pue = ", "is not TOML"),
        ("[gird]\n", r"section: found \[gird\], expected \[grid\]"),
        ("[site]\npue = 1.2\ndate = '2025'\n", "missing required field `source`, expected source, date"),
        ("[site]\npue = 1.2\nsource = 'S'\n", "missing required field `date`"),
        (SITE.replace("2025", "May"), "site.date: found 'May', expected a day, month or year"),
        (SITE + "wue = 2\n", "unknown field `wue`"),
        (SITE.replace("1.5", "0.9"), "site.pue: found 0.9, expected a number of at least 1"),
        (SITE.replace("1.5", "nan"), "site.pue: found nan"),
        (SITE.replace("1.5", "'1.5'"), "Expected a number, got a text"),
        (SITE + "low = 1.1\n", "low or high alone, expected both"),
        (GRID.replace("330", "400"), "found low 400, g_per_kwh 381, high 420, expected in this order"),
        (GRID.replace("life cycle", "marginal"), "Invalid enum value 'marginal'"),
        (GRID.replace('"S"', '""'), "grid.source: found an empty text"),
        (
            GRID.replace("g_per_kwh = 381\nlow = 330\nhigh = 420\n", ""),
            "found neither, expected g_per_kwh or",
        ),
        (GRID + "[[grid.hourly]]\nfile = 'hours.csv'\n", "found both, expected g_per_kwh or"),
        (
            "[price]\nper_kwh = 0.3\ncurrency = 'Euro'\nsource = 'S'\ndate = '2025'\n",
            "three letters, such as EUR",
        ),
        ("[embodied]\nkg = 1\nlifetime_h = 0\nsource = 'S'\ndate = '2025'\n", "embodied.lifetime_h: found 0"),
        (
            "[embodied]\nkg = 1\nlifetime_h = 9\nshare = 2\nsource = 'S'\ndate = '2025'\n",
            "embodied.share: found 2",
        ),
    ],
)
def test_anything_else_is_told(text: str, said: str, tmp_path: Path) -> None:
    """Where it stands, what was found and what was expected."""
    with pytest.raises(QueryError, match=said):
        stated(tmp_path, text)


def test_a_row_of_an_hourly_table_holds_until_the_next(tmp_path: Path) -> None:
    """But for an hour at most: what lies further off is a gap."""
    hours = "time,g_per_kwh,low,high\n2026-01-01T01:00+01:00,300,,\n2026-01-01T00:15Z,200,150,250\n2026-01-01T03:00Z,100,,\n"
    first, second, _ = stated(tmp_path, HOURLY, hours).hourly
    assert (second.from_ns - first.from_ns, first.to_ns) == (900 * 10**9, second.from_ns)
    assert (second.to_ns - second.from_ns, second.low, first.low) == (3600 * 10**9, 150, None)


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (None, "hours.csv cannot be read: found No such file"),
        ("", "columns: found nothing, expected time, g_per_kwh"),
        ("hour,g_per_kwh\n", "columns: found hour, g_per_kwh"),
        (
            "time,g_per_kwh\n2026-01-01T00:00,300\n",
            "line 2: found '2026-01-01T00:00', expected a time with its zone",
        ),
        ("time,g_per_kwh\n2026-01-01T00:00Z\n", "line 2: found None, expected grams"),
        (
            "time,g_per_kwh\n2026-01-01T00:00Z,-1\n",
            "line 2: found '-1', expected grams per kWh of at least 0",
        ),
        ("time,g_per_kwh,low,high\n2026-01-01T00:00Z,9,10,11\n", "both bounds in this order, or none"),
        (
            "time,g_per_kwh\n2026-01-01T00:00Z,1\n2026-01-01T01:00+01:00,1\n",
            "two rows of 2026-01-01T00:00:00",
        ),
    ],
)
def test_a_wrong_hourly_table_is_told(hours: str | None, said: str, tmp_path: Path) -> None:
    """With the line."""
    with pytest.raises(QueryError, match=said):
        stated(tmp_path, HOURLY, hours)
