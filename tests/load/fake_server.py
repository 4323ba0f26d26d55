"""A server without a model: answers OpenAI's endpoints at planned times, or in any wrong way that a real one has been seen in.

    python -m tests.load.fake_server '{"ttft_ms": 200, "tokens_per_chunk": 4}'

prints its port. Times are absolute: chunk k is written `ttft_ms + k * chunk_ms` after the request was read.
"""

import asyncio
import json
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any, Literal

import msgspec

Fault = Literal[
    "",
    "status_500",
    "status_429",
    "garbage",
    "reset_before_answer",
    "reset_in_stream",
    "close_in_stream",
    "stall",
    "truncated_chunk",
    "bad_chunk_size",
    "invalid_json",
    "error_in_stream",
    "not_a_stream",
    "no_usage",
    "never_finished",
    "missing_blank_line",
    "comment_pings",
    "utf8_cut",
    "crlf",
    "large_event",
    "close_after_answer",
    "no_done",
]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer is like."""

    ttft_ms: float = 0.0
    chunk_ms: float = 0.0
    tokens_per_chunk: int = 1
    early_role: bool = False  # an empty first piece, long before the first token
    continuous_usage: bool = False
    is_joined: bool = False  # what is due at one moment goes out in one write, as from a server that is faster than its client
    usage_factor: float = 1.0  # of the output tokens that the final usage claims
    fault: Fault = ""
    fault_every: int = 1  # of requests, those that get the fault
    wants_key: str = ""  # refuses a request without it
    times: str = ""  # a file that gets an Answered as a line of JSON for each answer


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the server knows of one of its answers; times are monotonic."""

    digest: int  # of the request's body
    read_ns: int
    first_ns: int  # the first piece was written
    last_ns: int  # the last piece with tokens was written
    tokens: int
    first_tokens: int  # in the first piece


class Reply:
    """One answer on its way."""

    def __init__(
        self, server: "FakeServer", transport: asyncio.Transport, asked: dict[str, Any], path: str
    ) -> None:
        self._server, self._transport, self._behaviour = server, transport, server.behaviour
        is_due = server.requests % self._behaviour.fault_every == 0
        self.fault: Fault = self._behaviour.fault if is_due else ""
        self._is_chat = "chat" in path
        self._tokens = int(asked.get("max_completion_tokens") or asked.get("max_tokens", 16))
        prompt = asked.get("prompt", [1])
        self._prompt_tokens = len(prompt) if isinstance(prompt, list) else len(str(prompt).split())
        self._sent = 0
        self._newline = b"\r\n" if self.fault == "crlf" else b"\n"
        self.digest = 0
        self.on_end: Callable[[], None] = lambda: None

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        self._read_ns = time.monotonic_ns()
        if self.fault in ("status_500", "status_429"):
            self._plain(int(self.fault[-3:]), {"error": {"message": "the fake was told to refuse"}})
        elif self.fault == "not_a_stream":
            self._plain(200, {"choices": [{"text": "all at once"}]})
        elif self.fault == "garbage":
            self._transport.write(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
            self._transport.close()
        elif self.fault == "reset_before_answer":
            self._transport.abort()
        elif self._behaviour.ttft_ms <= 0:
            self._head()
            self._next()
        else:
            if self._behaviour.early_role:
                loop.call_at(self._began_s + 0.005, self._head)
            loop.call_at(self._began_s + self._behaviour.ttft_ms / 1000, self._first)

    def _first(self) -> None:
        if not self._behaviour.early_role:
            self._head()
        self._first_ns = time.monotonic_ns()
        self._next()

    def _plain(self, status: int, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self._transport.write(
            b"HTTP/1.1 %d Told\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (status, len(body))
            + body
        )
        self.on_end()

    def _head(self) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            b"Keep-Alive: timeout=5, max=100\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        if self._behaviour.early_role:
            self._event({"choices": [self._choice("", role=True)]})

    def _next(self) -> None:
        """Write every piece that is due, then wait for the next."""
        loop, behaviour = asyncio.get_running_loop(), self._behaviour
        while self._sent < self._tokens:
            pieces = self._sent // behaviour.tokens_per_chunk
            due_s = self._began_s + (behaviour.ttft_ms + pieces * behaviour.chunk_ms) / 1000
            if behaviour.chunk_ms > 0 and due_s > loop.time():
                loop.call_at(due_s, self._next)
                return
            count = min(behaviour.tokens_per_chunk, self._tokens - self._sent)
            self._sent += count
            if not self._piece(count):
                return
        self._finish()

    def _piece(self, count: int) -> bool:
        """One piece, or what goes wrong in the place of the third; False where nothing follows."""
        text = " word" * count
        is_third = self._sent > 2 * self._behaviour.tokens_per_chunk and self.fault != ""
        match self.fault if is_third else "":
            case "reset_in_stream":
                self._reset()
                return False
            case "close_in_stream":
                self._transport.close()
                return False
            case "stall":
                return False
            case "truncated_chunk":
                self._transport.write(b'400\r\ndata: {"choices": [{"te')
                self._transport.close()
                return False
            case "bad_chunk_size":
                self._transport.write(b"not hex\r\n")
                return False
            case "invalid_json":
                self._raw(b'data: {"choices": [{"text": }]}\n\n')
                return True
            case "error_in_stream":
                self._event({"error": {"message": "out of blocks", "code": 500}})
                return True
            case "never_finished":
                self._transport.write(b"0\r\n\r\n")
                self.on_end()
                return False
            case "missing_blank_line":
                self._raw(b"data: " + json.dumps({"choices": [self._choice(text)]}).encode() + b"\n")
                return True
            case "comment_pings":
                self._raw(b": ping\n\n:\n\nevent: note\nretry: 10\n\n")
            case "utf8_cut":
                self._cut(text)
                return False
            case "large_event":
                text += "x" * 2**20
        self._event({"choices": [self._choice(text)]} | self._usage_so_far())
        return True

    def _cut(self, text: str) -> None:
        """A piece whose letters of several bytes are cut between two writes, and two chunks."""
        event = (
            b"data: "
            + json.dumps(
                {"choices": [self._choice(text + " ¿日本🙂")]} | self._usage_so_far(), ensure_ascii=False
            ).encode()
            + b"\n\n"
        )
        middle = event.index("🙂".encode()) + 2
        self._raw(event[:middle])
        asyncio.get_running_loop().call_later(0.01, self._rest_of_cut, event[middle:])

    def _rest_of_cut(self, rest: bytes) -> None:
        self._raw(rest)
        self._next()

    def _reset(self) -> None:
        """With unread bytes and no linger, a close is a reset."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _choice(self, text: str, *, role: bool = False, finish: str | None = None) -> dict[str, Any]:
        if not self._is_chat:
            return {"index": 0, "text": text, "finish_reason": finish}
        delta = {"role": "assistant", "content": text or None} if role else {"content": text}
        return {"index": 0, "delta": delta, "finish_reason": finish}

    def _usage_so_far(self) -> dict[str, Any]:
        if not self._behaviour.continuous_usage:
            return {}
        return {"usage": {"prompt_tokens": self._prompt_tokens, "completion_tokens": self._sent}}

    def _finish(self) -> None:
        if self._behaviour.times:
            self._note()
        self._event({"choices": [self._choice("", finish="length")]})
        if self.fault != "no_usage":
            claimed = round(self._tokens * self._behaviour.usage_factor)
            self._event(
                {"choices": [], "usage": {"prompt_tokens": self._prompt_tokens, "completion_tokens": claimed}}
            )
        if self.fault != "no_done":
            self._raw(b"data: [DONE]" + 2 * self._newline)
        self._transport.write(b"0\r\n\r\n")
        if self.fault == "close_after_answer":
            self._transport.close()
        self.on_end()

    def _note(self) -> None:
        """Add this answer to the file of times."""
        answered = Answered(
            digest=self.digest,
            read_ns=self._read_ns,
            first_ns=self._first_ns,
            last_ns=time.monotonic_ns(),
            tokens=self._tokens,
            first_tokens=min(self._behaviour.tokens_per_chunk, self._tokens),
        )
        with open(self._behaviour.times, "ab") as file:
            file.write(msgspec.json.encode(answered) + b"\n")

    def _event(self, said: dict[str, Any]) -> None:
        # some clients take no piece of a chat that does not say what it is
        kind = {"object": "chat.completion.chunk"} if self._is_chat else {}
        self._raw(b"data: " + json.dumps(kind | said).encode() + 2 * self._newline)

    def _raw(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class Joined:
    """A transport that writes once for all that is written in one turn of the loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._held = transport, bytearray()

    def write(self, data: bytes) -> None:
        if not self._held:
            asyncio.get_running_loop().call_soon(self._write_held)
        self._held += data

    def _write_held(self) -> None:
        held, self._held = self._held, bytearray()
        self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Served(asyncio.Protocol):
    """One connection to the fake."""

    def __init__(self, server: "FakeServer") -> None:
        self._server = server
        self._data = b""
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport: Any = Joined(transport) if self._server.behaviour.is_joined else transport
        self._server.connections += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._answer()

    def _answer(self) -> None:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if self._is_busy or not end:
            return
        if head.startswith(b"GET "):
            self._data = rest
            self._answer_get(head.split()[1])
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(rest) < length:
            return
        body, self._data, self._is_busy = rest[:length], rest[length:], True
        wanted = self._server.behaviour.wants_key
        reply = Reply(self._server, self._transport, json.loads(rest[:length]), head.split()[1].decode())
        self._server.requests += 1
        reply.on_end, reply.digest = self._free, zlib.crc32(body)
        if wanted and f"authorization: bearer {wanted}".encode() not in head.lower():
            reply.fault = "status_500"
        reply.begin()

    def _answer_get(self, path: bytes) -> None:
        """What clients ask first, and nothing else."""
        status, body = b"404 Not Found", b""
        if path in (b"/v1/models", b"/health"):
            status, body = b"200 OK", b'{"object":"list","data":[{"id":"fake","object":"model"}]}'
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)

    def _free(self) -> None:
        self._is_busy = False


class FakeServer:
    """Listens on a free port for as long as it is entered."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests = self.connections = 0

    async def __aenter__(self) -> "FakeServer":
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: Served(self), "127.0.0.1", 0, backlog=4096)
        self.port: int = self._listening.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()


async def _serve(behaviour: Behaviour) -> None:
    async with FakeServer(behaviour) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(msgspec.json.decode(sys.argv[1] if len(sys.argv) > 1 else "{}", type=Behaviour)))
