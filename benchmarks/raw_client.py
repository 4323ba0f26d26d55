"""The least that a client in Python can do: bare protocols that decode each piece and keep its time, without a log, without a check.

    python -m benchmarks.raw_client PORT CONNECTIONS REQUESTS TOKENS

prints its CPU time in ns, the tokens and the requests. It knows that the server keeps its connections and frames each piece as one chunk.
"""

import asyncio
import json
import sys
import time

import msgspec


class Choice(msgspec.Struct):
    text: str | None = None


class Piece(msgspec.Struct):
    choices: list[Choice] = []


class Raw(asyncio.Protocol):
    """One connection, one request after another."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._data = b""
        self._decode = msgspec.json.Decoder(Piece).decode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        at_ns = time.monotonic_ns()
        data = self._data + data
        *events, self._data = data.split(b"\n\n")
        for event in events:
            piece = event.partition(b"data: ")[2]
            if piece != b"[DONE]" and (choices := self._decode(piece).choices) and choices[0].text:
                self._run.times_ns.append(at_ns)
        if self._data.endswith(b"0\r\n\r\n"):
            self._data = b""
            self._run.ended += 1
            self._send()

    def _send(self) -> None:
        if self._run.left > 0:
            self._run.left -= 1
            self._transport.write(self._run.message)
        elif self._run.ended == self._run.requests and not self._run.done.done():
            self._run.done.set_result(None)


class Run:
    """What all connections share."""

    def __init__(self, requests: int, tokens: int) -> None:
        body = json.dumps({"prompt": list(range(32)), "max_tokens": tokens, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.message = head + body
        self.requests = self.left = requests
        self.ended = 0
        self.times_ns: list[int] = []


async def run(port: int, connections: int, requests: int, tokens: int) -> Run:
    """Ask all requests."""
    loop = asyncio.get_running_loop()
    asked = Run(requests, tokens)
    asked.done = loop.create_future()
    for _ in range(connections):
        await loop.create_connection(lambda: Raw(asked), "127.0.0.1", port)
    await asked.done
    return asked


if __name__ == "__main__":
    before_ns = time.process_time_ns()
    found = asyncio.run(run(*map(int, sys.argv[1:])))
    print(time.process_time_ns() - before_ns, len(found.times_ns), found.requests)
