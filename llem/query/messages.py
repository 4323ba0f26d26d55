"""Messages between a query and its child process: length-prefixed msgpack, never pickle."""

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from llem.factors import Factors

LENGTH = struct.Struct(">I")
MAX_MESSAGE_BYTES = 256 * 2**20  # a row cannot be larger
SMALLEST, LARGEST = -(2**63), 2**64 - 1  # what msgpack has integers for
_MAP = 100  # extension of a map with keys other than text: its pairs
_EXTENSIONS: tuple[tuple[type, Callable[[Any], bytes], Callable[[bytes], Any]], ...] = (
    (
        datetime,
        lambda moment: moment.isoformat().encode(),
        lambda text: datetime.fromisoformat(text.decode()),
    ),
    (date, lambda day: day.isoformat().encode(), lambda text: date.fromisoformat(text.decode())),
    (time, lambda hour: hour.isoformat().encode(), lambda text: time.fromisoformat(text.decode())),
    (
        timedelta,
        lambda span: b"%d %d %d" % (span.days, span.seconds, span.microseconds),
        lambda text: timedelta(*map(int, text.split())),
    ),
    (Decimal, lambda number: str(number).encode(), lambda text: Decimal(text.decode())),
    (UUID, lambda uuid: uuid.bytes, lambda sixteen: UUID(bytes=sixteen)),
    (int, lambda number: str(number).encode(), int),
)
_encoder = msgspec.msgpack.Encoder()


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One message; its class is its tag."""


class Job(Message, frozen=True, kw_only=True):
    """What the child is to do; the only message that it receives."""

    parent_pid: int
    store: str
    sql: str
    parameters: dict[str, str | int | float | bool | None] = {}
    limit: int | None = None
    parquet_path: str | None = None  # written by the child, the one file that it may then touch
    sealed: str | None = None  # a folder of Parquet, asked in the place of the store's tables
    plan_only: bool = False  # how DuckDB would run the statement over tables without rows, as JSON; nothing of a store is opened
    unsafe: bool = False
    factors: Factors | None = None
    memory_bytes: int
    cpu_s: int


class Notice(Message, frozen=True, kw_only=True):
    """A line for the user, such as how far behind the tables are."""

    text: str


class Progress(Message, frozen=True, kw_only=True):
    """How far the tables have come that the query waits for."""

    work: str
    done: int
    total: int
    unit: str


class Ready(Message, frozen=True):
    """The tables are up to date and the statement starts: from here on time counts."""


class Column(msgspec.Struct, frozen=True):
    """A column of the result; `type` in DuckDB's words."""

    name: str
    type: str


class Columns(Message, frozen=True, kw_only=True):
    """The columns of the result, names made unique."""

    columns: list[Column]


class Rows(Message, frozen=True, kw_only=True):
    """Some rows of the result."""

    rows: list[tuple[Any, ...]]


class Done(Message, frozen=True, kw_only=True):
    """The end of the result; `truncated` where the limit left rows out."""

    truncated: bool = False


class Failed(Message, frozen=True, kw_only=True):
    """Why there is no result; the fields of an LlemError."""

    what: str
    found: str | None = None
    expected: str | None = None
    hint: str | None = None
    exit_status: int = 2


Answer = Notice | Progress | Ready | Columns | Rows | Done | Failed


def portable(cell: Any) -> Any:
    """The value with everything that msgpack has no type for wrapped as an extension."""
    match cell:
        case None | bool() | float() | str() | bytes():
            return cell
        case int() if SMALLEST <= cell <= LARGEST:
            return cell
        case list() | tuple():
            return [portable(item) for item in cell]
        case dict() if all(isinstance(key, str) for key in cell):
            return {key: portable(item) for key, item in cell.items()}
        case dict():
            pairs = [(portable(key), portable(item)) for key, item in cell.items()]
            return msgspec.msgpack.Ext(_MAP, msgspec.msgpack.encode(pairs))
    for code, (kind, packed, _) in enumerate(_EXTENSIONS):
        if isinstance(cell, kind):
            return msgspec.msgpack.Ext(code, packed(cell))
    return str(cell)


def _unwrapped(code: int, packed: memoryview) -> Any:
    if code == _MAP:
        return dict(msgspec.msgpack.decode(packed, ext_hook=_unwrapped))
    return _EXTENSIONS[code][2](bytes(packed))


_answer_decoder = msgspec.msgpack.Decoder(Answer, ext_hook=_unwrapped)
_job_decoder = msgspec.msgpack.Decoder(Job)


def pack(message: Message) -> bytes:
    """The length of a message and the message."""
    payload = _encoder.encode(message)
    return LENGTH.pack(len(payload)) + payload


def unpack_job(payload: bytes) -> Job:
    """The job in a message without its length."""
    return _job_decoder.decode(payload)


def unpack_answer(payload: bytes) -> Answer:
    """The answer in a message without its length. Raises msgspec.MsgspecError."""
    answer: Answer = _answer_decoder.decode(payload)
    return answer
