"""llem query."""

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import msgspec
import typer

from llem.cli import console
from llem.cli.console import text_output
from llem.cli.options import CacheLimitOption, FactorsOption, StoreOption
from llem.cli.progress import WorkLine
from llem.cli.table import write_lines
from llem.errors import QueryError
from llem.export import formats, target
from llem.query.process import Limits, Parameter, ResultStream, running
from llem.query.statements import CATALOG, parse_parameters, saved_queries, saved_query, statement
from llem.store import Store

MAX_ROWS = 2**62
MAX_SQL_BYTES = 2**20
MAX_TIMEOUT_S = 30 * 24 * 3600.0
TABLE_ROWS = 1000  # a table is read by people and held in memory
Start = Callable[..., AbstractContextManager[ResultStream]]


class Hints(NamedTuple):
    """What shows the rest of a table: its columns and texts, and its rows."""

    whole: str = "-f lines"
    more: str = "--limit N sets how many are shown"


OPTIONS = Hints()


if TYPE_CHECKING:

    class Format(StrEnum):
        """Formats of a result: for the screen, all text formats, and Parquet. Those that the code itself names."""

        TABLE = "table"
        LINES = "lines"
        PARQUET = "parquet"
else:
    _NAMES = ["table", "lines", *formats.TEXT_FORMATS, "parquet"]
    Format = StrEnum("Format", {name.upper(): name for name in _NAMES})


def _complete_saved(incomplete: str) -> list[str]:
    return [query.name for query in saved_queries() if query.name.startswith(incomplete)]


def query(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SQL|TABLE|-]",
            help="One statement in quotes, a table or view, or - for stdin.",
            show_default=False,
        ),
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
    limit: Annotated[
        int | None, typer.Option(min=1, max=MAX_ROWS, metavar="N", help="At most N rows.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=MAX_TIMEOUT_S, metavar="S", help="Stop the query after S seconds.")
    ] = Limits().timeout_s,
    saved: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Run a query that ships with llem.", autocompletion=_complete_saved
        ),
    ] = None,
    list_saved: Annotated[
        bool,
        typer.Option("--list", help="List the queries that ship with llem, or print the SQL of --saved."),
    ] = False,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a copy of the tables that any DuckDB from 1.0 on may open and hold."
        ),
    ] = None,
    sealed: Annotated[
        bool,
        typer.Option(
            "--sealed",
            help="Ask the Parquet that llem seal wrote, of the store, or of a folder or address before the SQL.",
        ),
    ] = False,
    cache_limit: CacheLimitOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    raw_csv: Annotated[
        bool, typer.Option("--raw-csv", help="Leave text that a spreadsheet would run as it is.")
    ] = False,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Let the SQL read and write files and load extensions.")
    ] = False,
    factors: FactorsOption = None,
    store: StoreOption = None,
) -> None:
    """Ask the store in SQL; without SQL, list its tables and columns with their units."""
    if snapshot is not None:
        if words or saved or output:
            raise QueryError("--snapshot", found="a query beside it", expected="one of them")
        _write_snapshot(Store.locate(store).require(), snapshot, force=force)
        return
    place, sql = _place_and_sql(words or [], store, sealed=sealed)
    output = None if output is not None and target.is_stdout(output) else output
    if math.isnan(timeout):
        raise QueryError("--timeout", found="nan", expected="seconds")
    chosen = _format(output_format, output)
    if list_saved:
        _list_saved(saved, chosen, output, force=force)
        return
    line = WorkLine()
    asked = Asked(
        sql=_statement(sql, saved),
        store=Store.locate(store).require() if place is None else Store.locate(store),
        parameters=parse_parameters(parameter or ()),
        factors=factors,
        limits=Limits(timeout_s=timeout),
    )
    try:
        with local(place, asked, cache_limit, line) as folder:
            start = partial(
                running,
                **asked._asdict(),
                sealed=folder,
                limit=limit or (TABLE_ROWS if chosen is Format.TABLE else None),
                unsafe=unsafe,
                notify=line.note,
                on_progress=line.update,
            )
            if chosen is Format.PARQUET:
                _write_parquet(start, output, force=force)
            else:
                write_text(start, chosen, line, output=output, force=force, raw_csv=raw_csv)
    finally:
        line.erase()


class Asked(NamedTuple):
    """What is asked, wherever the rows are."""

    sql: str
    store: Store
    parameters: Mapping[str, Parameter]
    factors: Path | None
    limits: Limits


def local(
    place: Path | str | None, asked: Asked, cache_limit: str | None, line: WorkLine
) -> AbstractContextManager[Path | None]:
    """The folder of Parquet to ask, brought here where it is at an address; None for the store's tables. Raises QueryError, StoreError."""
    if not isinstance(place, str):
        return nullcontext(place)
    sealed = importlib.import_module("llem.cli.sealed")
    folder: AbstractContextManager[Path] = sealed.brought_from(
        place, **asked._asdict(), cache_limit=cache_limit, line=line
    )
    return folder


def _place_and_sql(
    words: Sequence[str], store: Path | None, *, sealed: bool
) -> tuple[Path | str | None, str | None]:
    """The folder of Parquet to ask, or its address, None for the store's tables, and the SQL. Raises QueryError, StoreError."""
    if len(words) > 1 + sealed:
        raise QueryError(
            "SQL",
            found=f"{len(words)} words",
            expected="a place and one statement" if sealed else "one",
            hint="quotes keep a statement whole: llem query 'SELECT count(*) FROM samples'; a place stands before it with --sealed",
        )
    sql = words[-1] if words else None
    named = words[0] if len(words) > 1 else None
    return sealed_place(named, store) if sealed else None, sql


def sealed_place(named: str | None, store: Path | None) -> Path | str:
    """The folder of Parquet that is named, or its address; by default that of the store. Raises StoreError."""
    if named is not None and "://" in named:
        return named
    sealing = importlib.import_module("llem.projections.sealed")
    folder: Path = sealing.sealed_folder(Store.locate(store).path if named is None else Path(named))
    return folder


def _write_snapshot(store: Store, path: Path, *, force: bool) -> None:
    projections = importlib.import_module("llem.projections")
    tables = importlib.import_module("llem.cli.tables")
    with target.replacing(path, force=force) as temporary, tables.work_line() as line:
        projections.snapshot(store, temporary, line.note)


def _list_saved(saved: str | None, chosen: Format, output: Path | None, *, force: bool) -> None:
    """The queries' names and what they answer; their SQL too in every form but a table, and alone where one is named."""
    if saved is not None:
        console.say(saved_query(saved).sql.rstrip())
        return
    if chosen is Format.PARQUET:
        raise QueryError("--list", found="-f parquet", expected="a format for text")
    columns = ["name", "description"] if chosen is Format.TABLE else ["name", "description", "sql"]
    rows = [[getattr(query, column) for column in columns] for query in saved_queries()]
    write_rows(chosen, columns, rows, output=output, force=force)


def write_rows(
    chosen: Format,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    output: Path | None = None,
    force: bool = False,
    hints: Hints = OPTIONS,
) -> None:
    """Write what is at hand to a file or stdout, in a format for text. Raises OutputError."""
    with _output(chosen, output, force=force) as out:
        _writer(chosen, raw_csv=False, whole=hints.whole)(out, columns, rows)


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
    if sql == "-":
        return _statement_on_stdin()
    return statement(sql)


def _statement_on_stdin() -> str:
    if sys.stdin is None:
        raise QueryError("the SQL on standard input cannot be read", found="a closed standard input")
    written = sys.stdin.buffer.read(MAX_SQL_BYTES + 1)
    if len(written) > MAX_SQL_BYTES:
        raise QueryError("the SQL on standard input is too long", expected=f"at most {MAX_SQL_BYTES} bytes")
    try:
        return written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start}: {error.reason}"
        raise QueryError("the SQL on standard input is not UTF-8", found=found) from None


def write_text(
    start: Start,
    chosen: Format,
    line: WorkLine,
    *,
    output: Path | None = None,
    force: bool = False,
    raw_csv: bool = False,
    hints: Hints = OPTIONS,
) -> None:
    """Write a result to a file or stdout, as a table or any other format for text. Raises QueryError, OutputError."""
    with _output(chosen, output, force=force) as stream, start() as result:
        write = _writer(chosen, raw_csv=raw_csv, whole=hints.whole)
        columns = [column.name for column in result.columns]
        line.erase()
        write(stream, columns, _rows(result))
        if result.truncated:
            console.note(f"llem: there are more rows; {hints.more}")


def _output(chosen: Format, output: Path | None, *, force: bool) -> AbstractContextManager[TextIO]:
    if output is not None:
        return target.text_file(output, force=force)
    return nullcontext(sys.stdout) if chosen is Format.TABLE else text_output()


def _writer(chosen: Format, *, raw_csv: bool, whole: str = OPTIONS.whole) -> formats.Writer:
    """The format's writer; rich is loaded only for a table, and while the query's process starts."""
    if chosen is Format.TABLE:
        return partial(importlib.import_module("llem.cli.table").write_table, instead=whole)
    if chosen is Format.LINES:
        return write_lines
    return formats.TEXT_FORMATS[chosen].writer(neutralise=not raw_csv)


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
