"""Whatever bytes a server sends, a request has exactly one end, and what is logged of it can be read."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from llem.load.answer import Answer
from llem.load.http1 import Connection, Pool, Target
from llem.load.openai import Prepared
from llem_events import envelope
from llem_events.events import Request, RequestsCompleted
from llem_events.request_events import times_problem
from tests.load.test_http1 import Wire

EVENTS = (
    b'data: {"choices": [{"text": " a"}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}\n\n',
    b'data: {"choices": [{"delta": {"content": " b"}, "finish_reason": null}]}\n\n',
    b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 99999999999999999999}}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": -7, "completion_tokens": 3000000000}}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n',
    b'data: {"choices": [{"text": 5}]}\n\n',
    b'data: {"error": {"message": "\\ud800"}}\n\n',
    b"data: [DONE]\n\n",
    b"data: " + b"[" * 5_000 + b"\n\n",
    b": ping\n\n",
    b"data:\n\n",
    b"\xff\xfe\n\n",
)
HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n",
    b"HTTP/1.1 503 \xe9\r\nContent-Length: 20\r\n\r\n",
    b"HTTP/1.1 103 Early\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
)


def chunk(content: bytes) -> bytes:
    """As it stands in a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


PIECES = st.lists(
    st.sampled_from(HEADS)
    | st.sampled_from(EVENTS)
    | st.sampled_from(EVENTS).map(chunk)
    | st.sampled_from([b"0\r\n\r\n", b"5\r\n", b"\r\n", b"0"])
    | st.binary(max_size=30),
    max_size=12,
)


def ended(pieces: list[bytes], *, is_reset: bool) -> list[Request]:
    """What becomes of a request that is answered like this, before its connection is lost."""
    found: list[Request] = []
    answer = Answer(
        0,
        arrival_ns=1,
        request=b"",
        prepared=Prepared(b"", 7, 4, None),
        keeps_text=True,
        on_end=lambda answer, request: found.append(request),
    )
    connection = Connection(Pool(Target("http://fake:1")))
    connection.connection_made(Wire())
    connection.send(answer, reused=False)
    for at_ns, piece in enumerate(pieces, 2):
        connection.read(piece, at_ns)
    connection.connection_lost(ConnectionResetError() if is_reset else None)
    return found


@settings(max_examples=400, deadline=None, derandomize=True)
@given(begins_well=st.booleans(), pieces=PIECES, is_reset=st.booleans())
def test_a_request_ends_once_and_can_be_logged(
    begins_well: bool, pieces: list[bytes], is_reset: bool
) -> None:
    """Without an exception, whatever numbers and letters come."""
    (request,) = ended([HEADS[0], *pieces] if begins_well else pieces, is_reset=is_reset)
    assert times_problem(request) is None
    assert (request.error is None) == (request.finish_reason != "error")
    assert envelope.pack(RequestsCompleted(window="measurement", requests=[request]), 1)


def test_nothing_hears_of_an_exchange_after_its_connection_was_lost() -> None:
    """A loop that is closed at once leaves no call behind."""

    async def ask() -> int:
        pool = Pool(Target("http://127.0.0.1:9"))
        heard: list[Request] = []
        answer = Answer(
            0,
            arrival_ns=1,
            request=b"",
            prepared=Prepared(b"", 7, 4, None),
            keeps_text=False,
            on_end=lambda answer, request: heard.append(request),
        )
        pool.send(answer)
        await pool.close()
        answer.stop(5)
        return len(heard)

    assert asyncio.run(ask()) == 1
