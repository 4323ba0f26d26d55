"""HTTP/1.1: the same body however it is framed and cut, connections kept only by those who keep them, every end told."""

import asyncio
import contextlib
import itertools
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.errors import PlanError
from llem.load.http1 import AnswerError, Connection, Head, Pool, Target, read_head
from tests.conftest import LIMIT_S
from tests.delays import best_of_rounds, delays


class Kept:
    """An exchange that keeps what it hears."""

    def __init__(self, request: bytes = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n") -> None:
        self.request = request
        self.heard: list[str] = []
        self.pieces: list[bytes] = []
        self.reused: list[bool] = []
        self.status = 0
        self.over = asyncio.Event()

    def sent(self, at_ns: int, *, reused: bool) -> None:
        self.reused.append(reused)

    def head(self, head: Head, at_ns: int) -> None:
        self.status = head.status

    def body(self, piece: bytes, at_ns: int) -> None:
        assert piece
        self.pieces.append(piece)

    def is_over(self) -> bool:
        return self.over.is_set()

    def is_answered(self) -> bool:
        return False

    def end(self, at_ns: int) -> None:
        self.heard.append("end")
        self.over.set()

    def fail(self, reason: str, at_ns: int) -> None:
        self.heard.append(reason)
        self.over.set()


class Wire(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def write(self, data: object) -> None:
        """Goes nowhere."""

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


def received(answer: bytes, cuts: list[int]) -> tuple[Kept, Wire]:
    """What an exchange hears of an answer that comes in pieces."""
    pool, wire, kept = Pool(Target("http://fake:1")), Wire(), Kept()
    connection = Connection(pool)
    connection.connection_made(wire)
    connection.send(kept, reused=False)
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    for start, end in itertools.pairwise(edges):
        piece = answer[start:end]
        if piece and not wire.is_closed:
            connection.read(piece, 1)
    return kept, wire


def chunked(parts: list[bytes], extension: str = "", trailer: str = "") -> bytes:
    """An answer in chunks."""
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension.encode(), part) for part in parts if part)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
    return head + chunks + b"0\r\n" + trailer.encode() + b"\r\n"


CUTS = st.lists(st.integers(0, 400), max_size=20)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    parts=st.lists(st.binary(max_size=60), max_size=6),
    cuts=CUTS,
    extension=st.sampled_from(["", ";a=b", " "]),
    trailer=st.sampled_from(["", "X-Sum: 1\r\n", "A: 1\r\nB: 2\r\n"]),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    parts: list[bytes], cuts: list[int], extension: str, trailer: str
) -> None:
    """Sizes, contents and their ends may all be cut; the connection stays open after the trailer."""
    kept, wire = received(chunked(parts, extension, trailer), cuts)
    assert (b"".join(kept.pieces), kept.heard, wire.is_closed) == (b"".join(parts), ["end"], False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(body=st.binary(max_size=100), cuts=CUTS)
def test_a_body_of_a_known_length_is_the_same_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    """It ends with its last byte; an informational answer before it is passed over."""
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    kept, wire = received(head + body, cuts)
    assert (b"".join(kept.pieces), kept.heard, wire.is_closed) == (body, ["end"], False)


def test_chunks_of_one_read_come_as_one_piece() -> None:
    """Whoever takes them is called once, with one time."""
    kept, _ = received(chunked([b"a", b"b", b"c"]), [])
    assert kept.pieces == [b"abc"]


@pytest.mark.parametrize("content", [b"a\r\nb", b"\r\n", b"\r\n3\r\nabc", b"ab\r\n0\r\n\r\n"])
def test_line_ends_and_sizes_within_a_chunk_are_its_content(content: bytes) -> None:
    """A read of whole chunks is cut by their sizes alone."""
    kept, wire = received(chunked([b"x", content]), [])
    assert (kept.pieces, kept.heard, wire.is_closed) == ([b"x" + content], ["end"], False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-x\r\n\r\n", "no answer in HTTP/1.1: found 'ssh-2.0-x'"),
        (b"HTTP/1.1 abc\r\n\r\n", "no answer in HTTP/1.1: found 'http/1.1 abc'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length: found '-5', expected a number"),
        (chunked([])[:-5] + b"-5\r\n", "size of a chunk: found '-5'"),
        (chunked([])[:-5] + b"zz\r\n", "size of a chunk: found 'zz'"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "headers of more than 65536 bytes"),
        (chunked([])[:-5] + b"1" * 5_000, "a chunk's size of more than 4096 bytes"),
    ],
)
def test_what_is_no_http_ends_the_exchange_and_the_connection(answer: bytes, reason: str) -> None:
    """With one reason."""
    kept, wire = received(answer, [])
    assert (kept.heard, wire.is_closed) == ([reason], True)


def test_bytes_after_the_answer_end_the_connection() -> None:
    """The answer is whole, but what follows it was not asked for."""
    kept, wire = received(chunked([b"a"]) + b"HTTP/1.1 200 OK\r\n", [])
    assert (kept.heard, wire.is_closed) == (["end"], True)


@pytest.mark.parametrize(
    ("head", "stays_open"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive", True),
        (b"HTTP/1.1 200 OK", False),
    ],
)
def test_a_connection_stays_open_as_the_server_says(head: bytes, stays_open: bool) -> None:
    """By version and header; a body that ends with the connection ends it."""
    assert read_head(head).stays_open is stays_open


def test_a_head_that_is_none_is_told_each_time() -> None:
    """Heads are kept, errors are not."""
    for _ in range(2):
        with pytest.raises(AnswerError):
            read_head(b"nothing")


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:b", "http://a:99999", "http:///v1"]
)
def test_a_url_of_no_server_is_refused(url: str) -> None:
    """With one that would do."""
    with pytest.raises(
        PlanError, match=r"the server's URL: found .*, expected such as http://127.0.0.1:8000"
    ):
        Target(url)


@pytest.mark.parametrize(
    ("url", "base"),
    [("http://a:1", ""), ("http://a:1/", ""), ("http://a:1/v1/", ""), ("https://a/llm/v1", "/llm")],
)
def test_a_base_is_kept_without_its_version(url: str, base: str) -> None:
    """The paths of the endpoints begin with it."""
    assert Target(url).base == base


Answers = list[
    tuple[bytes | None, bool]
]  # what is answered, None: nothing for 0.3 s; whether the server closes then


async def _asked(
    answers: Answers, count: int, context: ssl.SSLContext | None = None
) -> tuple[list[Kept], Pool]:
    """`count` exchanges one after another with a server that answers each connection's requests in turn."""
    order = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while await reader.readline() not in (b"\r\n", b""):
                pass
            answer, closes = next(order)
            if answer is None:
                await asyncio.sleep(0.3)
            writer.write(answer or b"")
            if closes:
                break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    pool = Pool(Target(f"{'https' if context else 'http'}://localhost:{port}"))
    exchanges = []
    for _ in range(count):
        exchanges.append(Kept())
        pool.send(exchanges[-1])
        await asyncio.wait_for(exchanges[-1].over.wait(), LIMIT_S)
    await pool.close()
    server.close()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    return exchanges, pool


SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_connection_that_is_kept_is_used_again() -> None:
    """Ten requests, one connection."""
    exchanges, pool = asyncio.run(_asked([(SHORT, False)] * 10, 10))
    assert all(exchange.heard == ["end"] for exchange in exchanges)
    assert (pool.opened, pool.stale, [exchange.reused for exchange in exchanges[:2]]) == (
        1,
        0,
        [[False], [True]],
    )


@best_of_rounds
def test_a_server_that_closes_whatever_it_says_is_asked_anew() -> None:
    """As llama.cpp does: nothing is lost, and after three such connections none is kept any more."""
    exchanges, pool = asyncio.run(_asked([(SHORT, True)] * 20, 20))
    with delays():  # a fifth of a second after it was sent, a request is not sent again
        assert all(exchange.heard == ["end"] for exchange in exchanges)
    assert pool.opened == 20
    assert pool.stale <= 3


def test_a_server_that_dies_over_a_request_is_not_asked_again() -> None:
    """A connection that was used before, lost long after the request was sent, was not closed before."""
    exchanges, pool = asyncio.run(_asked([(SHORT, False), (None, True)], 2))
    assert exchanges[1].heard == ["the server closed the connection before its answer began"]
    assert (exchanges[1].reused, pool.opened, pool.stale) == ([True], 1, 0)


def test_a_body_without_length_ends_with_its_connection() -> None:
    """As HTTP/1.0 has it."""
    (exchange,), _ = asyncio.run(_asked([(b"HTTP/1.1 200 OK\r\n\r\nall", True)], 1))
    assert (exchange.heard, exchange.pieces) == (["end"], [b"all"])


@pytest.mark.parametrize(
    ("answer", "when"),
    [
        (b"", "before its answer began"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "in the middle of its headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "in the middle of its answer"),
        (chunked([b"ok"])[:-5], "in the middle of its answer"),
    ],
)
def test_a_connection_closed_too_early_says_when(answer: bytes, when: str) -> None:
    """The first request of a connection is not sent twice: the server may have seen it."""
    (exchange,), pool = asyncio.run(_asked([(answer, True)], 1))
    assert exchange.heard == [f"the server closed the connection {when}"]
    assert pool.opened == 1


def test_a_port_where_nobody_listens_is_told() -> None:
    """With the place and the system's reason."""

    async def ask() -> Kept:
        pool, exchange = Pool(Target("http://127.0.0.1:9")), Kept()
        pool.send(exchange)
        await asyncio.wait_for(exchange.over.wait(), LIMIT_S)
        await pool.close()
        return exchange

    assert "no connection to 127.0.0.1:9: " in asyncio.run(ask()).heard[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    paths = folder / "certificate.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def test_tls_is_spoken(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """To a server whose certificate is known, over one connection."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    exchanges, pool = asyncio.run(_asked([(SHORT, False)] * 3, 3, context))
    assert [exchange.heard for exchange in exchanges] == [["end"]] * 3
    assert pool.opened == 1


def test_a_certificate_that_nobody_knows_is_refused(certificate: tuple[Path, Path]) -> None:
    """And the request says why."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    (exchange,), _ = asyncio.run(_asked([], 1, context))
    assert "certificate verify failed" in exchange.heard[0]


def test_a_read_has_one_time_taken_before_it_is_parsed() -> None:
    """All pieces of a read share it, and it is no later than the call that brought them."""
    times: list[int] = []

    class Timed(Kept):
        def head(self, head: Head, at_ns: int) -> None:
            times.append(at_ns)

        def body(self, piece: bytes, at_ns: int) -> None:
            times.append(at_ns)

        def end(self, at_ns: int) -> None:
            times.append(at_ns)

    async def read(answer: bytes) -> tuple[int, int]:
        pool = Pool(Target("http://fake:1"))
        connection = Connection(pool)
        connection.connection_made(Wire())
        connection.send(Timed(), reused=False)
        pool.buffer[: len(answer)] = answer
        before_ns = time.monotonic_ns()
        connection.buffer_updated(len(answer))
        after_ns = time.monotonic_ns()
        await asyncio.sleep(0.01)
        return before_ns, after_ns

    before_ns, after_ns = asyncio.run(read(chunked([b"x" * 1_000] * 100)))
    assert len(times) == 3
    assert len(set(times)) == 1
    assert before_ns <= times[0] <= after_ns


def test_what_comes_after_an_exchange_was_given_up_is_not_read() -> None:
    """Bytes may wait to be parsed while its connection is aborted."""

    async def read() -> list[str]:
        pool, kept, wire = Pool(Target("http://fake:1")), Kept(), Wire()
        connection = Connection(pool)
        connection.connection_made(wire)
        connection.send(kept, reused=False)
        connection.read(chunked([b"a"])[:-5], 1)
        pool.buffer[:5] = b"1\r\nb\r"
        connection.buffer_updated(5)
        connection.abort()
        await asyncio.sleep(0.01)
        assert wire.is_closed
        return kept.heard + [piece.decode() for piece in kept.pieces]

    assert asyncio.run(read()) == ["a"]
