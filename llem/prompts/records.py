"""The records of a prompt file, told apart by content: JSON Lines, JSON, CSV with a header, or one prompt a line."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from llem.errors import PlanError
from llem.prompts.text_file import EXPECTED, read_pieces

MAX_RECORD_CHARS = 2**23
MAX_HEADER_CHARS = 2**16
MAX_LINES = 10_000_000
DELIMITERS = (",", ";", "\t")
# the first that a record has is its prompt
PROMPT_FIELDS = ("messages", "conversations", "conversation", "prompt", "instruction", "text")
# names that promise more structure than lines of text have
_STRUCTURED = frozenset(
    {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".xml", ".html"}
)
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*["\[{\]])')
_NAME = re.compile(r"\s*[\w.-]+\s*")
_BLANK = re.compile(r"\s*")


class Record(NamedTuple):
    """One record and the line that it starts on: a line of text, a JSON value, or the cells of a row by name."""

    line: int
    content: Any


def read_records(path: Path) -> Iterator[Record]:
    """The records, read as they are asked for. Raises PlanError naming the file and the line."""
    pieces = read_pieces(path)
    head = _head(pieces)
    return _reader(path, head)(path, chain([head], pieces))


def _head(pieces: Iterator[str]) -> str:
    """The beginning, up to the end of the first line that is not blank and no further than a record may be long."""
    head = ""
    for piece in pieces:
        head += piece
        if "\n" in head.lstrip() or len(head) > MAX_RECORD_CHARS:
            break
    return head


def _reader(path: Path, head: str) -> Callable[[Path, Iterator[str]], Iterator[Record]]:
    if _JSON_START.match(head):
        return _json_records
    line = head.lstrip().partition("\n")[0]
    if _delimiter(line) is not None:
        return _csv_records
    suffix = Path(path.stem if path.suffix in {".gz", ".zst", ".zstd"} else path).suffix.lower()
    if suffix in _STRUCTURED and line:
        raise PlanError(
            f"prompt file {path} is not understood",
            found=f"{suffix} that begins with {line[:40]!r}",
            expected=f"{EXPECTED}; {field_names()}",
        )
    return _text_records


def field_names() -> str:
    """The fields that can hold a prompt, for messages."""
    return f"a field or a column {', '.join(PROMPT_FIELDS[:-1])} or {PROMPT_FIELDS[-1]}"


def _lines(path: Path, pieces: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends."""
    rest, number = "", 1
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield number, line + "\n"
            number += 1
        if len(rest) > MAX_RECORD_CHARS:
            raise _too_long(path, number)
        if number > MAX_LINES:
            raise PlanError(f"prompt file {path} has too many lines", expected=f"at most {MAX_LINES}")
    if rest:
        yield number, rest


def _too_long(path: Path, line: int) -> PlanError:
    return PlanError(f"{path} line {line} is too long", expected=f"at most {MAX_RECORD_CHARS} characters")


def _text_records(path: Path, pieces: Iterator[str]) -> Iterator[Record]:
    for number, line in _lines(path, pieces):
        if line.strip():
            yield Record(number, line.removesuffix("\n").rstrip("\r"))


def _delimiter(line: str) -> str | None:
    """What separates the columns, where the line is a header that names a prompt."""
    for delimiter in DELIMITERS if len(line) <= MAX_HEADER_CHARS else ():
        cells = _cells(line.rstrip("\r"), delimiter)
        names = [_column_name(cell) for cell in cells]
        if all(map(_NAME.fullmatch, cells)) and any(name in PROMPT_FIELDS for name in names):
            return delimiter
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _column_name(cell: str) -> str:
    """A header's cell as the name of a field."""
    return cell.strip().casefold()


def _csv_records(path: Path, pieces: Iterator[str]) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD_CHARS)
    lines = _lines(path, pieces)
    header_line, header = next((number, line.strip()) for number, line in lines if line.strip())
    delimiter = _delimiter(header) or DELIMITERS[0]
    names = [_column_name(cell) for cell in _cells(header, delimiter)]
    rows = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    line = header_line + 1
    try:
        for cells in rows:
            if cells:
                yield Record(line, _named(path, line, names, cells))
            line = header_line + rows.line_num + 1
    except csv.Error as error:
        raise PlanError(f"{path} line {line}", found=error, expected="a row of CSV") from None


def _named(path: Path, line: int, names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(names):
        raise PlanError(
            f"{path} line {line}", found=f"{len(cells)} cells", expected=f"{len(names)}, as the header has"
        )
    return {name: cell for name, cell in zip(names, cells, strict=True) if cell}


def _json_records(path: Path, pieces: Iterator[str]) -> Iterator[Record]:
    """The elements of one array, or values one after another."""
    scanner = _Scanner(path, pieces)
    is_array = scanner.take("[")
    while not (scanner.take("]") if is_array else scanner.is_at_end()):
        yield scanner.record()
        if is_array and not scanner.take(","):
            scanner.expect("]")
            break
    if not scanner.is_at_end():
        raise PlanError(f"{path} line {scanner.line}", found="more text", expected="the end after the array")


class _Scanner:
    """Takes JSON values out of text that comes in pieces; holds little more than one value."""

    def __init__(self, path: Path, pieces: Iterator[str]) -> None:
        self.line = 1
        self._path, self._pieces = path, pieces
        self._text, self._at = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def is_at_end(self) -> bool:
        """Whether only blanks are left; they are skipped."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._move(blank.end() if blank else self._at)
            if self._at < len(self._text):
                return False
            if not self._grow():
                return True

    def take(self, mark: str) -> bool:
        """Whether the next character that is not blank is this one, which is then taken."""
        if self.is_at_end() or self._text[self._at] != mark:
            return False
        self._move(self._at + 1)
        return True

    def expect(self, mark: str) -> None:
        """Take this character. Raises PlanError where another comes."""
        if not self.take(mark):
            following = "the end of the file" if self.is_at_end() else repr(self._text[self._at])
            raise PlanError(f"{self._path} line {self.line}", found=following, expected=repr(mark))

    def record(self) -> Record:
        """The next value, and the line that it starts on. Raises PlanError."""
        self.is_at_end()
        while True:
            try:
                content, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # it may only be cut off
                if len(self._text) - self._at > MAX_RECORD_CHARS:
                    raise _too_long(self._path, self.line) from None
                if not self._grow():
                    raise self._not_json(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._not_json(error) from None
            else:
                record = Record(self.line, content)
                self._move(end)
                return record

    def _not_json(self, found: object) -> PlanError:
        return PlanError(
            f"{self._path} line {self.line}", found=found, expected='JSON such as {"prompt": "..."}'
        )

    def _move(self, at: int) -> None:
        self.line += self._text.count("\n", self._at, at)
        self._at = at

    def _grow(self) -> bool:
        """Read on, at least as much as is there, so that a long value is not tried too often."""
        rest = [self._text[self._at :]]
        wanted = len(rest[0])
        more = 0
        while more <= wanted and (piece := next(self._pieces, None)) is not None:
            rest.append(piece)
            more += len(piece)
        self._text, self._at = "".join(rest), 0
        return more > 0
