"""SQL as it is typed: where its statements end, and what may come next, each with what it means and its unit."""

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

_TOKEN = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"   # in quotes
    | (?<!\w)\$(?P<tag>\w*)\$.*?\$(?P=tag)\$                             # in dollar quotes
    | (?P<comment> --[^\n]*(?:\n|$) | /\*.*?\*/ )
    | (?P<open> ['"] | /\* | (?<!\w)\$\w*\$ )                            # begun and not ended
    | (?P<end> ; )
    """,
    re.DOTALL | re.VERBOSE,
)
NAMES = """
SELECT 'table' AS kind, table_name AS name, NULL AS owner, comment AS meaning
FROM duckdb_tables() WHERE NOT internal AND database_name <> 'temp'
UNION ALL SELECT 'table', view_name, NULL, comment FROM duckdb_views() WHERE NOT internal AND database_name <> 'temp'
UNION ALL SELECT 'column', column_name, table_name, comment FROM duckdb_columns() WHERE NOT internal AND database_name <> 'temp'
UNION ALL SELECT 'macro', function_name, NULL, '(' || array_to_string(parameters, ', ') || ') ' || comment
FROM duckdb_functions() WHERE NOT internal
ORDER BY kind, name
"""
KEYWORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "JOIN", "LEFT JOIN", "USING", "ON", "AS"),
    *("AND", "OR", "NOT", "NULL", "IS", "IN", "BETWEEN", "LIKE", "DISTINCT", "CASE", "WHEN", "THEN", "ELSE", "END"),
    *("WITH", "UNION ALL", "VALUES", "DESCRIBE", "SUMMARIZE", "EXPLAIN", "DESC", "ASC", "OVER", "PARTITION BY", "QUALIFY"),
)  # fmt: skip
_SOURCE = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)(?:\s+(?:AS\s+)?(\w+))?", re.IGNORECASE)
Meanings = Mapping[str, str]


def split(text: str) -> tuple[list[str], str]:
    """The statements that end in the text, each with its semicolon, and what comes behind them."""
    statements, start = [], 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            break
        if token["end"]:
            statements.append(text[start : token.end()].strip())
            start = token.end()
    return [statement for statement in statements if not is_blank(statement)], text[start:]


def is_blank(text: str) -> bool:
    """Whether it holds nothing but spaces, comments and semicolons."""
    return not _TOKEN.sub(lambda token: "" if token["comment"] or token["end"] else "x", text).strip()


def is_whole(text: str) -> bool:
    """Whether it can be run as it is: a command with a dot, or statements that have all ended."""
    return text.lstrip().startswith(".") or is_blank(split(text)[1])


def commands(lines: Iterable[str]) -> Iterator[str]:
    """Statements over any number of lines, and the lines between them that begin with a dot; what is left at the end is a statement too."""
    text = ""
    for line in lines:
        if is_blank(text) and line.lstrip().startswith("."):
            yield line.strip()
            text = ""
            continue
        text += line
        if ";" in line:
            ended, text = split(text)
            yield from ended
    if not is_blank(text):
        yield text.strip()


class Names(msgspec.Struct, frozen=True):
    """What can be named: tables, the columns of each and macros; commands, and what may stand behind each. All with their meanings."""

    tables: Meanings = {}
    columns: Mapping[str, Meanings] = {}
    macros: Meanings = {}
    commands: Meanings = {}
    arguments: Mapping[str, Meanings] = {}


class Candidate(msgspec.Struct, frozen=True):
    """A text for the place of the last `replaced` characters."""

    text: str
    replaced: int
    meaning: str


def names_of(rows: Iterable[tuple[str, ...]]) -> Names:
    """Those of a store, of the rows of NAMES."""
    tables: dict[str, str] = {}
    macros: dict[str, str] = {}
    columns: dict[str, dict[str, str]] = {}
    for kind, name, owner, meaning in rows:
        if kind == "column":
            columns.setdefault(owner, {})[name] = meaning or ""
        else:
            (tables if kind == "table" else macros)[name] = meaning or ""
    return Names(tables, columns, macros)


def candidates(before: str, after: str, names: Names) -> Iterator[Candidate]:
    """What may stand at the cursor, in the order of likelihood."""
    word = re.search(r"\w*$", before)
    assert word is not None
    if before.startswith("."):
        yield from _of_command(before, names)
        return
    seen: set[str] = set()
    for meanings in _groups(before[: word.start()], before + after, names):
        for text, meaning in meanings.items():
            if text.lower().startswith(word[0].lower()) and text not in seen:
                seen.add(text)
                yield Candidate(text, len(word[0]), meaning)


def _of_command(before: str, names: Names) -> Iterator[Candidate]:
    command, space, argument = before.partition(" ")
    meanings = names.arguments.get(command, {}) if space else names.commands
    typed = argument.lstrip() if space else command
    for text, meaning in meanings.items():
        if text.startswith(typed):
            yield Candidate(text, len(typed), meaning)


def _groups(before: str, whole: str, names: Names) -> list[Meanings]:
    """Meanings by name, the likeliest group first."""
    macros = {f"{name}(": parameters for name, parameters in names.macros.items()}
    sources = _sources(whole)
    if qualifier := re.search(r"(\w+)\.$", before):
        return [names.columns.get(sources.get(qualifier[1], qualifier[1]), {})]
    if re.search(r"\b(?:FROM|JOIN|DESCRIBE|SUMMARIZE)\s+$", before, re.IGNORECASE):
        return [names.tables, macros]
    named = [names.columns[table] for table in sources.values() if table in names.columns]
    keywords = dict.fromkeys(KEYWORDS, "")
    return [*(named or names.columns.values()), names.tables, macros, keywords]


def _sources(sql: str) -> dict[str, str]:
    """Table by its name or its other name in the statement."""
    return {other or table: table for table, other in _SOURCE.findall(sql)} | {
        table: table for table, _ in _SOURCE.findall(sql)
    }
