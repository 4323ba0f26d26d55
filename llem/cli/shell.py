"""llem shell."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from llem.cli import console
from llem.cli.options import CacheLimitOption, FactorsOption, StoreOption
from llem.cli.progress import WorkLine
from llem.cli.query import (
    MAX_SQL_BYTES,
    MAX_TIMEOUT_S,
    TABLE_ROWS,
    Asked,
    Format,
    Hints,
    local,
    sealed_place,
    write_rows,
    write_text,
)
from llem.errors import LlemError, OutputError, QueryError, is_text
from llem.query.process import Limits, Parameter, ResultStream, running
from llem.query.statements import SCHEMA, TABLES, parse_parameters, saved_queries, saved_query, statement
from llem.query.typed_sql import commands, is_whole
from llem.store import Store

HINTS = Hints(whole=".mode lines", more="LIMIT and OFFSET choose others, .mode csv has no limit")
MODES = {
    "table": "as wide as the terminal",
    "lines": "each column on a line of its own",
    "csv": "comma-separated values",
    "json": "one array",
}
PROMPT, CONTINUED = "llem> ", "  ... "


class Command(NamedTuple):
    """A line that begins with a dot."""

    arguments: str
    meaning: str
    do: Callable[["Session", Sequence[str]], None]


class Session:
    """What stays from one statement to the next: the store or what is sealed of it, the limits and the mode."""

    def __init__(
        self,
        store: Store,
        *,
        timeout_s: float,
        factors: Path | None = None,
        sealed: Path | str | None = None,
        cache_limit: str | None = None,
    ) -> None:
        self.store, self.factors = store, factors
        self.sealed, self.cache_limit = sealed, cache_limit
        self.limits = Limits(timeout_s=timeout_s)
        self.mode = Format.TABLE
        self.has_ended = False

    def take(self, command: str) -> None:
        """Do what was written: a statement, or a line that begins with a dot. Raises LlemError."""
        if not is_text(command):
            raise QueryError("what was written is not UTF-8")
        if not command.startswith("."):
            self.show(statement(command))
            return
        name, *arguments = command.rstrip("; \t").split()
        if name not in COMMANDS:
            raise QueryError("no such command", found=name, hint=".help lists them, SQL begins without a dot")
        COMMANDS[name].do(self, arguments)

    def show(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> None:
        """Run one statement and write its rows in the chosen mode. Raises QueryError."""
        line = WorkLine()
        try:
            write_text(partial(self._run, sql, line, parameters), self.mode, line, hints=HINTS)
        finally:
            line.erase()

    def rows(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement of our own. Raises QueryError."""
        line = WorkLine()
        try:
            with self._run(sql, line, parameters) as result:
                return list(result.rows())
        finally:
            line.erase()

    @contextmanager
    def _run(
        self, sql: str, line: WorkLine, parameters: Mapping[str, Parameter] | None
    ) -> Iterator[ResultStream]:
        asked = Asked(sql, self.store, parameters or {}, self.factors, self.limits)
        with (
            local(self.sealed, asked, self.cache_limit, line) as folder,
            running(
                **asked._asdict(),
                sealed=folder,
                limit=TABLE_ROWS if self.mode is Format.TABLE else None,
                notify=line.note,
                on_progress=line.update,
            ) as result,
        ):
            yield result


def shell(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLACE]",
            help="With --sealed: a folder or an address; the store's own by default.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=MAX_TIMEOUT_S, metavar="S", help="Stop a query after S seconds.")
    ] = Limits().timeout_s,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Ask the Parquet that llem seal wrote, of the store or at PLACE.")
    ] = False,
    cache_limit: CacheLimitOption = None,
    factors: FactorsOption = None,
    store: StoreOption = None,
) -> None:
    """Ask the store in SQL, statement after statement, each ended by a semicolon; .help says what else there is.

    Statements may come from a pipe; then the first that fails ends it.
    """
    if place is not None and not sealed:
        raise QueryError("llem shell", found=place, expected="nothing behind it, or --sealed PLACE")
    asked = Store.locate(store)
    session = Session(
        asked if sealed else asked.require(),
        timeout_s=timeout,
        factors=factors,
        sealed=sealed_place(place, store) if sealed else None,
        cache_limit=cache_limit,
    )
    is_asked = console.can_ask()
    if is_asked and console.can_be_drawn_over(sys.stdout):
        _converse(session, importlib.import_module("llem.cli.shell_prompt").reader(session))
    elif is_asked:
        _converse(session, _ask_plainly)
    else:
        _take_all(session, commands(_lines()))


def _converse(session: Session, read: Callable[[], str]) -> None:
    """Read and do until the end; an error ends nothing, an interrupt what is going on."""
    while not session.has_ended:
        try:
            written = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            _take_all(session, commands(written.splitlines(keepends=True)))
        except KeyboardInterrupt:
            console.note("llem: stopped")
        except OutputError:
            raise
        except LlemError as error:
            console.complain(str(error))


def _take_all(session: Session, written: Iterator[str]) -> None:
    for command in written:
        session.take(command)
        if session.has_ended:
            return


def _lines() -> Iterator[str]:
    """Lines of standard input. Raises QueryError."""
    while sys.stdin is not None and (line := sys.stdin.buffer.readline(MAX_SQL_BYTES + 1)):
        yield _text(line)


def _text(line: bytes) -> str:
    if len(line) > MAX_SQL_BYTES:
        raise QueryError("a line is too long", expected=f"at most {MAX_SQL_BYTES} bytes")
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise QueryError("a line is not UTF-8", found=f"byte {error.start}: {error.reason}") from None


def _ask_plainly() -> str:
    """Lines up to the end of a statement, on a terminal that can only write on."""
    text, lines = "", _lines()
    while not text or not is_whole(text):
        sys.stderr.write(CONTINUED if text else PROMPT)
        sys.stderr.flush()
        try:
            text += next(lines)
        except StopIteration:
            raise EOFError from None
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            raise
    return text


def _help(session: Session, arguments: Sequence[str]) -> None:
    rows = [(f"{name} {command.arguments}".strip(), command.meaning) for name, command in COMMANDS.items()]
    width = max(len(usage) for usage, _ in rows)
    for usage, meaning in rows:
        console.say(f"{usage:<{width}}  {meaning}")


def _tables(session: Session, arguments: Sequence[str]) -> None:
    session.show(TABLES)


def _schema(session: Session, arguments: Sequence[str]) -> None:
    table = _only(arguments, ".schema", "a table or view")
    rows = session.rows(SCHEMA, {"table": table})
    if not rows:
        raise QueryError("no such table or view", found=table, hint=".tables lists them")
    write_rows(session.mode, ["column", "unit", "meaning", "type"], rows, hints=HINTS)


def _mode(session: Session, arguments: Sequence[str]) -> None:
    chosen = _only(arguments, ".mode", ", ".join(MODES))
    if chosen not in MODES:
        raise QueryError(".mode", found=chosen, expected=", ".join(MODES))
    session.mode = Format(chosen)


def _saved(session: Session, arguments: Sequence[str]) -> None:
    if arguments:
        session.show(saved_query(arguments[0]).sql, parse_parameters(arguments[1:]))
    else:
        queries = [(query.name, query.description) for query in saved_queries()]
        write_rows(session.mode, ["name", "description"], queries, hints=HINTS)


def _quit(session: Session, arguments: Sequence[str]) -> None:
    session.has_ended = True


def _only(arguments: Sequence[str], command: str, expected: str) -> str:
    if len(arguments) != 1:
        raise QueryError(command, found=" ".join(arguments) or "nothing behind it", expected=expected)
    return arguments[0]


COMMANDS = {
    ".tables": Command("", "tables, views and macros", _tables),
    ".schema": Command("TABLE", "its columns, with their units", _schema),
    ".mode": Command("|".join(MODES), "how rows are written", _mode),
    ".saved": Command("[NAME [KEY=VALUE]]", "run a query that ships with llem, or list them", _saved),
    ".help": Command("", "this list", _help),
    ".quit": Command("", "leave, as Ctrl-D does", _quit),
}
