"""`factors.toml`: what a reader states about a site, so that joules become grams, litres and money. None is bundled and none is fetched."""

import csv
import hashlib
import re
import time
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from llem.errors import QueryError, in_words
from llem.store import LAST, Store, open_segment
from llem.units import NS_PER_S
from llem_events import SegmentReader, unpack
from llem_events.events import FactorsStated, StatedFactor, StatedIntensity

FILE_NAME = "factors.toml"
MAX_FILE_BYTES = 2**20
MAX_TABLE_BYTES = 64 * 2**20
LONGEST = timedelta(hours=1)  # that a row of an hourly table holds
EXPECTED_COLUMNS = ("time", "g_per_kwh")
_AT_LEAST = {"pue": 1.0}
Section = TypeVar("Section", bound="Stated")
Number = int | float
RECORDED = "@"  # before a run, in the place of a file


class Stated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every section says beside its figure; `low` and `high` are what that may be instead."""

    source: str
    date: str  # a year, a month or a day
    low: Number | None = None
    high: Number | None = None


class Hourly(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of intensities by time, beside the file of factors."""

    file: str


class Grid(Stated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[grid]: grams of CO2 equivalents per kilowatt-hour, as one figure or by time."""

    basis: Literal["life cycle", "direct"]
    method: str
    g_per_kwh: Number | None = None
    hourly: list[Hourly] = []
    zone: str | None = None
    period: str | None = None


class Site(Stated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[site]: energy of the whole site over that of its computers."""

    pue: Number
    scope: str | None = None


class Price(Stated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[price]: of a kilowatt-hour."""

    per_kwh: Number
    currency: str


class Water(Stated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[water]: litres per kilowatt-hour."""

    l_per_kwh: Number
    scope: str | None = None


class Embodied(Stated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[embodied]: what making the hardware emitted, over its lifetime; `share` is the part of it that was measured."""

    kg: Number
    lifetime_h: Number
    share: Number = 1


SECTIONS: dict[str, tuple[type[Stated], str]] = {
    "grid": (Grid, "g_per_kwh"),
    "site": (Site, "pue"),
    "price": (Price, "per_kwh"),
    "water": (Water, "l_per_kwh"),
    "embodied": (Embodied, "kg"),
}


class Factors(msgspec.Struct, frozen=True, kw_only=True):
    """All that a file states: rows of the tables `factors` and `hourly_factors`."""

    stated: list[StatedFactor]
    hourly: list[StatedIntensity] = []


def read_factors(path: Path) -> Factors:
    """What the file states. Raises QueryError."""
    try:
        table = tomllib.loads(_text(path, MAX_FILE_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise QueryError(f"{path} is not TOML", found=error) from None
    if unknown := [name for name in table if name not in SECTIONS]:
        raise _wrong(path, "section", found=f"[{unknown[0]}]", expected=_listed(SECTIONS))
    if not table:
        raise _wrong(path, "factors", found="none", expected=_listed(SECTIONS))
    sections = {name: _section(path, name, table[name]) for name in table}
    grid = sections.get("grid")
    hourly = _hourly(path, grid) if isinstance(grid, Grid) else []
    return Factors(stated=[_factor(name, each) for name, each in sections.items()], hourly=hourly)


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(f"[{name}]" for name in names)


def _wrong(path: Path, key: str, *, found: object, expected: object) -> QueryError:
    return QueryError(
        f"{path}: {key}", found=found, expected=expected, hint="docs/footprint.md has an example"
    )


def _text(path: Path, most_bytes: int) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise QueryError(f"{path} is too large", expected=f"at most {most_bytes} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise QueryError(f"{path} cannot be read", found=error.strerror) from None
    except UnicodeDecodeError as error:
        raise QueryError(f"{path} cannot be read", found=f"byte {error.start} is not UTF-8") from None


def _section(path: Path, name: str, table: object) -> Stated:
    kind, key = SECTIONS[name]
    try:
        section = msgspec.convert(_with_written_date(table), kind)
    except msgspec.ValidationError as error:
        raise _wrong(path, f"[{name}]", found=in_words(str(error)), expected=", ".join(_keys(kind))) from None
    _check_texts(path, name, section)
    _check_numbers(path, name, key, section)
    if isinstance(section, Grid) and (section.g_per_kwh is None) is not bool(section.hourly):
        both = "both" if section.hourly else "neither"
        raise _wrong(path, "[grid]", found=both, expected="g_per_kwh or [[grid.hourly]]")
    return section


def _with_written_date(table: object) -> object:
    """TOML has days of its own, beside a year in quotes."""
    if isinstance(table, dict) and isinstance(table.get("date"), date):
        return table | {"date": table["date"].isoformat()}
    return table


def _keys(kind: type[Stated]) -> Iterator[str]:
    """The keys of a section, those that may be left out in brackets."""
    for field in msgspec.structs.fields(kind):
        yield field.name if field.required else f"({field.name})"


def _check_texts(path: Path, name: str, section: Stated) -> None:
    for key in section.__struct_fields__:
        if getattr(section, key) == "":
            raise _wrong(path, f"{name}.{key}", found="an empty text", expected="what it is")
    if not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", section.date):
        raise _wrong(
            path, f"{name}.date", found=repr(section.date), expected="a day, month or year of the source"
        )
    if isinstance(section, Price) and not re.fullmatch("[A-Z]{3}", section.currency):
        raise _wrong(
            path, "price.currency", found=repr(section.currency), expected="three letters, such as EUR"
        )


def _check_numbers(path: Path, name: str, key: str, section: Stated) -> None:
    """Numbers that can be, and a figure that lies between its bounds."""
    value, low, high = getattr(section, key), section.low, section.high
    least = _AT_LEAST.get(key, 0.0)
    for each, number in ((key, value), ("low", low), ("high", high)):
        if number is not None and not least <= number < float("inf"):
            raise _wrong(path, f"{name}.{each}", found=number, expected=f"a number of at least {least:g}")
    if (low is None) is not (high is None):
        raise _wrong(path, f"[{name}]", found="low or high alone", expected="both, or neither")
    if low is not None and high is not None and (value is None or not low <= value <= high):
        raise _wrong(
            path, f"[{name}]", found=f"low {low}, {key} {value}, high {high}", expected="in this order"
        )
    if isinstance(section, Embodied):
        _check_share(path, section)


def _check_share(path: Path, section: Embodied) -> None:
    if not 0 < section.lifetime_h < float("inf"):
        raise _wrong(path, "embodied.lifetime_h", found=section.lifetime_h, expected="hours above 0")
    if not 0 < section.share <= 1:
        raise _wrong(path, "embodied.share", found=section.share, expected="above 0, at most 1")


def _factor(name: str, section: Stated) -> StatedFactor:
    """The section as a row, with what one has to know to read its figure."""
    key = SECTIONS[name][1]
    factor, unit, scale, said = key, "", 1.0, [getattr(section, "scope", None)]
    match section:
        case Grid():
            unit, said = "g/kWh", [section.basis, section.method, section.zone, section.period]
        case Price():
            factor, unit = "price_per_kwh", f"{section.currency}/kWh"
        case Water():
            unit = "L/kWh"
        case Embodied():
            factor, unit, scale = "embodied_g_per_h", "g/h", 1000 * section.share / section.lifetime_h
            said = [f"{section.kg:g} kg over {section.lifetime_h:g} h, share {section.share:g}"]
    value, low, high = (
        None if number is None else number * scale
        for number in (getattr(section, key), section.low, section.high)
    )
    basis = ", ".join(filter(None, said)) or None
    return StatedFactor(
        factor=factor,
        value=value,
        low=low,
        high=high,
        unit=unit,
        basis=basis,
        source=section.source,
        date=section.date,
    )


def _hourly(path: Path, grid: Grid) -> list[StatedIntensity]:
    """Rows of all tables, by time; each holds until the next one, an hour at most."""
    rows = [row for each in grid.hourly for row in _rows(path.parent / each.file)]
    rows.sort(key=lambda row: row[0])
    for before, after in pairwise(rows):
        if before[0] == after[0]:
            raise _wrong(path, "[[grid.hourly]]", found=f"two rows of {after[0].isoformat()}", expected="one")
    starts = [time for time, *_ in rows]
    ends = [*starts[1:], *(last + LONGEST for last in starts[-1:])]
    return [
        StatedIntensity(
            from_ns=_ns(time), to_ns=_ns(min(end, time + LONGEST)), g_per_kwh=grams, low=low, high=high
        )
        for (time, grams, low, high), end in zip(rows, ends, strict=True)
    ]


def _ns(time: datetime) -> int:
    return int(time.timestamp()) * NS_PER_S


def _rows(path: Path) -> Iterator[tuple[datetime, float, float | None, float | None]]:
    """Time, grams and their bounds of each row of a CSV. Raises QueryError."""
    reader = csv.DictReader(_text(path, MAX_TABLE_BYTES).splitlines())
    if not set(EXPECTED_COLUMNS) <= set(reader.fieldnames or ()):
        found = ", ".join(reader.fieldnames or ()) or "nothing"
        raise _wrong(path, "columns", found=found, expected="time, g_per_kwh, and low and high where known")
    for row in reader:
        at = f"line {reader.line_num}"
        low, high = (_number(path, at, row[key]) if row.get(key) else None for key in ("low", "high"))
        grams = _number(path, at, row["g_per_kwh"])
        if (low is None) is not (high is None) or (
            low is not None and high is not None and not low <= grams <= high
        ):
            raise _wrong(
                path,
                at,
                found=f"low {low}, {grams}, high {high}",
                expected="both bounds in this order, or none",
            )
        yield _time(path, at, row["time"]), grams, low, high


def _number(path: Path, at: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise _wrong(path, at, found=repr(text), expected="grams per kWh of at least 0")
    return number


def _time(path: Path, at: str, text: str) -> datetime:
    """A moment that says its zone: an hour's shift would go unseen."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _wrong(path, at, found=repr(text), expected="a time with its zone, such as 2026-01-31T12:00Z")
    return time.astimezone(UTC)


def factors_for(store_path: Path, given: Path | None) -> Factors | None:
    """Those of the file given, else of a factors.toml beside the store; None without either. @RUN stands for those in its log. Raises QueryError, StoreError."""
    if given is not None and str(given).startswith(RECORDED):
        return _recorded(Store(store_path), str(given))
    if given is not None:
        return read_factors(given)
    beside = store_path.resolve().parent / FILE_NAME
    return read_factors(beside) if beside.is_file() else None


def record(
    store: Store, experiment_ids: Sequence[str], factors: Factors, *, report: str, content: str
) -> None:
    """A note in the log of every run of a report, with what it was written with. Raises LogWriteError."""
    stated = FactorsStated(
        report=report,
        report_sha256=hashlib.sha256(content.encode()).hexdigest(),
        factors=factors.stated,
        hourly=factors.hourly,
    )
    for experiment_id in experiment_ids:
        folder = store.log_path / experiment_id
        with open_segment(folder, experiment_id=experiment_id, role="note") as writer:
            writer.append(stated, at_ns=time.monotonic_ns())
            writer.seal()


def _recorded(store: Store, named: str) -> Factors:
    """Those of the newest report of a run that recorded any. Raises QueryError, StoreError."""
    run = store.resolve(named if named == LAST else named.removeprefix(RECORDED))
    notes = [note for path in (store.log_path / run).glob("note-*") for note in _stated(path)]
    if not notes:
        raise QueryError(
            f"factors in the log of {run}", found="none", expected="those of llem report --record"
        )
    _, newest = max(notes, key=lambda note: note[0])
    return Factors(stated=newest.factors, hourly=newest.hourly)


def _stated(path: Path) -> list[tuple[int, FactorsStated]]:
    """What a note says of factors, by the wall clock of its writer. Raises LogError."""
    with SegmentReader(path) as reader:
        events = [unpack(envelope) for block in reader.blocks() for envelope in reader.events(block)]
        wall_ns = reader.header.wall_ns if reader.header else 0
    return [(wall_ns, event) for event in events if isinstance(event, FactorsStated)]
