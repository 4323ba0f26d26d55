"""HTTP/1.1 for one kind of request: a POST whose answer is handed on byte by byte, each read with its one time."""

import asyncio
import functools
import itertools
import re
import ssl
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from llem.errors import PlanError

READ_BYTES = 2**18
MAX_HEAD_BYTES = 2**16
MAX_SIZE_LINE_BYTES = 4096
CONNECT_LIMIT_S = 10.0
# A server that closes after every answer whatever it says of keep-alive is known by so many closed connections and none used again.
STALE_LIMIT = 3
# The answer of a connection that was closed before it was used again is there after one way to the server and back.
STALE_NS = 200_000_000
_CRLF_BYTES = 2
_HEXADECIMAL = itertools.repeat(16)
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")
_NO_BODY = frozenset({204, 304})


class AnswerError(Exception):
    """An answer that cannot be used; its text, a line, becomes that of the request."""


class Exchange(Protocol):
    """A request on its way. Exactly one of `end` and `fail` is called, once, and nothing after it."""

    request: bytes

    def sent(self, at_ns: int, *, reused: bool) -> None:
        """Its first byte is about to be sent; a second time where a connection turned out to be closed."""

    def head(self, head: "Head", at_ns: int) -> None:
        """The status line and the headers of its answer are there."""

    def body(self, piece: bytes, at_ns: int) -> None:
        """Some of the answer's body, without its framing."""

    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""

    def is_answered(self) -> bool:
        """Whether the body says by itself that it is whole, so that a connection closed now loses nothing."""

    def end(self, at_ns: int) -> None:
        """The answer is whole."""

    def fail(self, reason: str, at_ns: int) -> None:
        """There will be no more of the answer."""


class Target:
    """Where a server is: `http://host:port/base`, with or without `/v1` at its end."""

    def __init__(self, url: str) -> None:
        """Raises PlanError for what is no URL of a server."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise PlanError("the server's URL", found=repr(url), expected="such as http://127.0.0.1:8000")
        self.is_encrypted = parts.scheme == "https"
        self.host = parts.hostname
        self.port = port or (443 if self.is_encrypted else 80)
        self.base = parts.path.rstrip("/").removesuffix("/v1")
        self.authority = parts.netloc.rpartition("@")[2]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connection(asyncio.BufferedProtocol):
    """One connection of a pool: at most one exchange at a time."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None
        self._phase: Callable[[bytes, int], None] = self._unasked
        self._rest = b""  # the beginning of a head or of a line with a chunk's size
        self._left = 0  # bytes that are still to come of the body, or of a chunk with its CRLF
        self._is_reused = self._has_answer = self._stays_open = False
        self._sent_ns = 0

    def send(self, exchange: Exchange, *, reused: bool) -> None:
        """Put an exchange on its way."""
        assert self._transport is not None
        self._exchange, self._is_reused, self._has_answer = exchange, reused, False
        self._phase, self._rest = self._head, b""
        self._sent_ns = time.monotonic_ns()
        exchange.sent(self._sent_ns, reused=reused)
        self._transport.write(exchange.request)

    def is_usable(self) -> bool:
        """Whether nothing is known of its end."""
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Close at once, with whatever is on its way; nobody is told."""
        self._exchange, self._phase = None, self._unasked
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._pool.take(self, nbytes, time.monotonic_ns())

    def read(self, data: bytes, at_ns: int) -> None:
        """What came at `at_ns`."""
        try:
            self._phase(data, at_ns)
        except AnswerError as error:
            self._fail(str(error), at_ns)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        at_ns = time.monotonic_ns()
        self._pool.read_all()
        self._pool.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._is_reused and not self._has_answer and at_ns - self._sent_ns < STALE_NS:
            self._pool.send_again(exchange)
        elif exchange.is_answered() or (self._phase == self._until_closed and error is None):
            exchange.end(at_ns)
        else:
            exchange.fail(self._loss(error), at_ns)

    def _loss(self, error: Exception | None) -> str:
        how = "reset" if isinstance(error, ConnectionResetError) else "closed"
        when = "before its answer began"
        if self._phase != self._head:
            when = "in the middle of its answer"
        elif self._has_answer:
            when = "in the middle of its headers"
        said = f" ({error})" if error is not None and how == "closed" else ""
        return f"the server {how} the connection {when}{said}"

    def _unasked(self, data: bytes, at_ns: int) -> None:
        """What comes without having been asked for ends the connection."""
        self.abort()

    def _head(self, data: bytes, at_ns: int) -> None:
        self._has_answer = True
        head, end, body = (self._rest + data).partition(b"\r\n\r\n")
        if not end:
            self._rest = head
            if len(head) > MAX_HEAD_BYTES:
                raise AnswerError(f"headers of more than {MAX_HEAD_BYTES} bytes")
            return
        self._rest = b""
        read = read_head(head)
        if 100 <= read.status < 200:
            return self._head(body, at_ns) if body else None
        self._stays_open = read.stays_open
        self._left = read.length or 0
        self._phase = self._chunked if read.is_chunked else self._sized
        if not read.is_chunked and read.length is None:
            self._phase = self._until_closed
        assert self._exchange is not None
        self._exchange.head(read, at_ns)
        if body or read.length == 0:
            self._phase(body, at_ns)

    def _until_closed(self, data: bytes, at_ns: int) -> None:
        assert self._exchange is not None
        self._exchange.body(data, at_ns)

    def _sized(self, data: bytes, at_ns: int) -> None:
        assert self._exchange is not None
        piece = data[: self._left]
        self._left -= len(piece)
        if piece:
            self._exchange.body(piece, at_ns)
        if self._left == 0:
            self._end(at_ns, has_more=len(data) > len(piece))

    def _chunked(self, data: bytes, at_ns: int) -> None:
        """The contents of all chunks in this read as one piece, so that whoever takes them is called once."""
        if self._left or self._rest or (contents := _whole_chunks(data)) is None:
            self._chunked_anyhow(data, at_ns)
            return
        assert self._exchange is not None
        if piece := b"".join(contents):
            self._exchange.body(piece, at_ns)
        if not contents[-1]:
            self._end(at_ns, has_more=False)

    def _chunked_anyhow(self, data: bytes, at_ns: int) -> None:
        """The same however chunks are cut into reads, and with extensions and trailing headers."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        contents: list[bytes] = []
        try:
            after_last = self._unpack(data, contents)
        finally:
            if contents:
                assert self._exchange is not None
                self._exchange.body(b"".join(contents), at_ns)
        if after_last is None:
            return
        if data[after_last:] == b"\r\n":  # no trailing headers, as nearly always
            self._end(at_ns, has_more=False)
        else:
            self._phase = self._trailer
            self._trailer(data[after_last:], at_ns)

    def _unpack(self, data: bytes, contents: list[bytes]) -> int | None:
        """Append the contents of chunks; returns where the trailer begins, None as long as the last chunk is not there."""
        position, length = self._left, len(data)
        if position > _CRLF_BYTES:
            contents.append(data[: position - _CRLF_BYTES])
        self._left = 0
        while position < length:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                self._keep_line(data[position:])
                return None
            line = data[position:line_end]
            try:
                size = int(line, 16)
            except ValueError:
                size = _size_with_extension(line)
            if size < 0:
                raise AnswerError(f"size of a chunk: found {line[:40].decode(errors='replace')!r}")
            position = line_end + _CRLF_BYTES
            if size == 0:
                return position
            contents.append(data[position : position + size])
            position += size + _CRLF_BYTES
        self._left = position - length
        return None

    def _keep_line(self, line: bytes) -> None:
        if len(line) > MAX_SIZE_LINE_BYTES:
            raise AnswerError(f"a chunk's size of more than {MAX_SIZE_LINE_BYTES} bytes")
        self._rest = line

    def _trailer(self, data: bytes, at_ns: int) -> None:
        """Trailing headers, which nobody needs, up to the empty line."""
        data = self._rest + data
        if data.startswith(b"\r\n"):
            end = _CRLF_BYTES
        elif (found := data.find(b"\r\n\r\n")) >= 0:
            end = found + 4
        else:
            self._keep_line(data)
            return
        self._rest = b""
        self._end(at_ns, has_more=len(data) > end)

    def _end(self, at_ns: int, *, has_more: bool) -> None:
        """The connection is free before the exchange hears of its end, because the next one may be sent from there."""
        exchange, self._exchange = self._exchange, None
        self._phase = self._unasked
        if self._stays_open and not has_more:
            self._pool.keep(self)
        elif self._transport is not None:
            self._transport.close()
        if exchange is not None:
            exchange.end(at_ns)

    def _fail(self, reason: str, at_ns: int) -> None:
        exchange, self._exchange = self._exchange, None
        self.abort()
        if exchange is not None:
            exchange.fail(reason, at_ns)


class Pool:
    """The connections to one server: opened when needed, used again as long as the server keeps them."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.opened = self.stale = self.reused = 0
        self._idle: list[Connection] = []
        self._open: dict[Connection, Exchange | None] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._unread: list[tuple[Connection, bytes, int]] = []
        self._ssl = ssl.create_default_context() if target.is_encrypted else None
        self._address: str | None = None

    def send(self, exchange: Exchange) -> None:
        """Send over an idle connection, or over a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                self.reused += 1
                self._open[connection] = exchange
                connection.send(exchange, reused=True)
                return
        self._send_anew(exchange)

    def take(self, connection: Connection, nbytes: int, at_ns: int) -> None:
        """Keep what came until every connection with something to read has its time: a server writes many streams at once."""
        self._unread.append((connection, self.buffer[:nbytes].tobytes(), at_ns))
        if len(self._unread) == 1:
            asyncio.get_running_loop().call_soon(self.read_all)

    def read_all(self) -> None:
        """Hand on what was kept."""
        unread, self._unread = self._unread, []
        for connection, data, at_ns in unread:
            connection.read(data, at_ns)

    def send_again(self, exchange: Exchange) -> None:
        """The connection was closed before it was used: nobody has seen the request."""
        self.stale += 1
        self.reused -= 1
        self._send_anew(exchange)

    def keep(self, connection: Connection) -> None:
        """A connection without an exchange, for the next one; closed where this server never keeps any."""
        self._open[connection] = None
        if self.stale >= STALE_LIMIT and self.reused <= 0:
            connection.abort()
        else:
            self._idle.append(connection)

    def cancel(self, exchange: Exchange) -> None:
        """Close the connection of an exchange, which hears nothing more."""
        for connection, its_exchange in self._open.items():
            if its_exchange is exchange:
                connection.abort()
                return

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._open.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        """Close everything."""
        for task in self._opening:
            task.cancel()
        for connection in list(self._open):
            connection.abort()
        await asyncio.gather(*self._opening, return_exceptions=True)
        # A transport tells of its end, and closes its socket, in the next round of the loop.
        await asyncio.sleep(0)

    def _send_anew(self, exchange: Exchange) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                connection = await self._new_connection()
        except TimeoutError:
            exchange.fail(f"no connection to {self.target} within {CONNECT_LIMIT_S:g} s", time.monotonic_ns())
        except OSError as error:
            reason = error.strerror or str(error)
            exchange.fail(f"no connection to {self.target}: {reason}", time.monotonic_ns())
        else:
            self.opened += 1
            if exchange.is_over():
                self.keep(connection)
                return
            self._open[connection] = exchange
            connection.send(exchange, reused=False)

    async def _new_connection(self) -> Connection:
        """To the address that answered first: a name is looked up once."""
        loop = asyncio.get_running_loop()
        host = self.target.host
        transport, connection = await loop.create_connection(
            lambda: Connection(self),
            self._address or host,
            self.target.port,
            ssl=self._ssl,
            server_hostname=host if self._ssl else None,
        )
        if self._address is None:
            self._address = transport.get_extra_info("peername")[0]
        return connection


class Head(msgspec.Struct, frozen=True):
    """What an answer's status line and headers say of it."""

    status: int
    content_type: str
    is_chunked: bool
    length: int | None  # None: in chunks, or until the connection is closed
    stays_open: bool


@functools.lru_cache(maxsize=256)
def read_head(head: bytes) -> Head:
    """Everything in lower case, because none of it knows case. Servers repeat themselves, so heads are kept. Raises AnswerError."""
    first, *lines = head.decode("latin-1").lower().split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if not version.startswith("http/1.") or not code.isdecimal():
        raise AnswerError(f"no answer in HTTP/1.1: found {first[:40]!r}")
    headers = {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}
    is_chunked = "chunked" in headers.get("transfer-encoding", "")
    length = None if is_chunked else _length(int(code), headers.get("content-length"))
    return Head(
        status=int(code),
        content_type=headers.get("content-type", ""),
        is_chunked=is_chunked,
        length=length,
        stays_open=_stays_open(version, headers.get("connection", "")) and (is_chunked or length is not None),
    )


def _length(status: int, said: str | None) -> int | None:
    if status in _NO_BODY or status < 200:
        return 0
    if said is not None and not said.isdecimal():
        raise AnswerError(f"Content-Length: found {said[:40]!r}, expected a number")
    return None if said is None else int(said)


def _stays_open(version: str, said: str) -> bool:
    return "keep-alive" in said if version == "http/1.0" else "close" not in said


def _whole_chunks(data: bytes) -> list[bytes] | None:
    """The contents of a read of nothing but whole chunks, the last one of all as b""; None for any other read.

    Content with a line end of its own never has the length that the line before it says.
    """
    *parts, rest = data.split(b"\r\n")
    contents = parts[1::2]
    try:
        sizes = list(map(int, parts[::2], _HEXADECIMAL))
    except ValueError:
        return None
    if rest or not contents or sizes != list(map(len, contents)) or 0 in sizes[:-1]:
        return None
    return contents


def _size_with_extension(line: bytes) -> int:
    """Of a chunk whose line holds more than its size; -1 where it holds none."""
    digits = line.partition(b";")[0].strip()
    return int(digits, 16) if _HEX.fullmatch(digits) else -1
