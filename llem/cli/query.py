"""llem query."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
import typer

from llem.cli import console
from llem.cli.lines import write_lines
from llem.cli.options import StoreOption
from llem.cli.screen import text_output
from llem.errors import QueryError
from llem.export import as_csv, as_json, as_jsonl, as_markdown, target
from llem.query.catalog import CATALOG
from llem.query.parameters import parse_parameters
from llem.query.process import Limits, ResultStream, running
from llem.query.saved import saved_queries, saved_query
from llem.store import Store

TABLE_ROWS = 1000  # a table is read by people and held in memory
Writer = Callable[[TextIO, Sequence[str], Iterable[Sequence[Any]]], None]
Start = Callable[..., AbstractContextManager[ResultStream]]


class Format(StrEnum):
    """Formats of a result."""

    TABLE = "table"
    LINES = "lines"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    MD = "md"
    PARQUET = "parquet"


def query(
    sql: Annotated[
        str | None,
        typer.Argument(metavar="[SQL|-]", help="One statement, or - for stdin.", show_default=False),
    ] = None,
    output_format: Annotated[
        Format | None,
        typer.Option(
            "-f", "--format", help="By default a table, or what FILE's name says.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="NAME=VALUE", help="A value for $NAME; quotes make it text."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N rows.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Stop the query after S seconds.")
    ] = Limits().timeout_s,
    saved: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run a query that ships with llem.")
    ] = None,
    list_saved: Annotated[bool, typer.Option("--list", help="List the queries that ship with llem.")] = False,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a copy of the tables that any DuckDB from 1.0 on may open and hold."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    raw_csv: Annotated[
        bool, typer.Option("--raw-csv", help="Leave text that a spreadsheet would run as it is.")
    ] = False,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Let the SQL read and write files and load extensions.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Ask the store in SQL; without SQL, list its tables and columns with their units."""
    if list_saved:
        _list_saved()
        return
    if snapshot is not None:
        if sql or saved or output:
            raise QueryError("--snapshot", found="a query beside it", expected="one of them")
        _write_snapshot(Store.locate(store).require(), snapshot, force=force)
        return
    chosen = _format(output_format, output)
    start = partial(
        running,
        _statement(sql, saved),
        store=Store.locate(store).require(),
        parameters=parse_parameters(parameter or ()),
        limit=limit or (TABLE_ROWS if chosen is Format.TABLE else None),
        unsafe=unsafe,
        limits=Limits(timeout_s=timeout),
        notify=console.note,
    )
    if chosen is Format.PARQUET:
        _write_parquet(start, output, force=force)
    else:
        _write_text(start, chosen, output, force=force, raw_csv=raw_csv)


def _write_snapshot(store: Store, path: Path, *, force: bool) -> None:
    projections = importlib.import_module("llem.projections")
    with target.replacing(path, force=force) as temporary:
        projections.snapshot(store, temporary, console.note)


def _list_saved() -> None:
    for saved in saved_queries():
        console.say(f"{saved.name:<28} {saved.description}")


def _format(given: Format | None, output: Path | None) -> Format:
    if given is not None:
        return given
    suffix = output.suffix.removeprefix(".").lower() if output else "table"
    if suffix not in set(Format):
        raise QueryError(f"no format for {output}", hint="name one with -f")
    return Format(suffix)


def _statement(sql: str | None, saved: str | None) -> str:
    if saved is not None:
        if sql is not None:
            raise QueryError("SQL and --saved", expected="one of them")
        return saved_query(saved).sql
    if sql is None:
        return CATALOG
    return sys.stdin.read() if sql == "-" else sql


def _write_text(start: Start, chosen: Format, output: Path | None, *, force: bool, raw_csv: bool) -> None:
    with _output(chosen, output, force=force) as stream, start() as result:
        write = _writer(chosen, raw_csv=raw_csv)
        write(stream, [column.name for column in result.columns], _rows(result))
        if result.truncated:
            console.note("llem: there are more rows; --limit N sets how many are shown")


def _output(chosen: Format, output: Path | None, *, force: bool) -> AbstractContextManager[TextIO]:
    if output is not None:
        return target.text_file(output, force=force)
    return nullcontext(sys.stdout) if chosen is Format.TABLE else text_output()


def _writer(chosen: Format, *, raw_csv: bool) -> Writer:
    """The format's writer; rich is loaded only for a table, and while the query's process starts."""
    if chosen is Format.TABLE:
        return partial(importlib.import_module("llem.cli.table").write_table, instead="-f lines")
    writers: dict[Format, Writer] = {
        Format.LINES: write_lines,
        Format.CSV: partial(as_csv.write, neutralise=not raw_csv),
        Format.JSON: as_json.write,
        Format.JSONL: as_jsonl.write,
        Format.MD: as_markdown.write,
    }
    return writers[chosen]


def _rows(result: ResultStream) -> Iterator[Sequence[Any]]:
    """The rows, columns of type JSON marked as what they are, so that JSON holds no JSON in a string."""
    places = [place for place, column in enumerate(result.columns) if column.type == "JSON"]
    if not places:
        yield from result.rows()
        return
    for row in result.rows():
        marked = list(row)
        for place in places:
            marked[place] = None if row[place] is None else msgspec.Raw(row[place].encode())
        yield marked


def _write_parquet(start: Start, output: Path | None, *, force: bool) -> None:
    if output is None:
        raise QueryError("a Parquet file is not for a screen or a pipe", hint="name a file with -o FILE")
    with target.replacing(output, force=force) as temporary, start(parquet_path=temporary) as result:
        result.finish()
