"""Two other clients for the load benchmark, which do neither check nor log.

    python -m benchmarks.load_peers raw PORT CONNECTIONS REQUESTS TOKENS

`raw` is the least that a client in Python can do: bare protocols that decode each piece and keep its time. It knows that the server keeps
its connections and frames each piece as one chunk. `aiohttp` is how most load generators are built, where that package is installed.
Each prints a line of JSON: its CPU time, its tokens, and of each request a digest, when it was sent and when its first token came.
"""

import asyncio
import json
import sys
import time
import zlib

import msgspec


class Choice(msgspec.Struct):
    text: str | None = None


class Piece(msgspec.Struct):
    choices: list[Choice] = []


decode = msgspec.json.Decoder(Piece).decode


class Run:
    """What all connections share."""

    def __init__(self, port: int, connections: int, requests: int, tokens: int) -> None:
        self.port, self.connections, self.requests, self._tokens = port, connections, requests, tokens
        self.begun = self.ended = 0
        self.sent: dict[int, int] = {}
        self.times_ns: list[int] = []
        self.first_ns: dict[int, int] = {}

    def body(self) -> tuple[int, bytes]:
        """The next request, and its digest."""
        prompt = [self.begun, *range(31)]
        body = json.dumps({"prompt": prompt, "max_tokens": self._tokens, "stream": True}).encode()
        self.begun += 1
        digest = zlib.crc32(body)
        self.sent[digest] = time.monotonic_ns()
        return digest, body

    def take(self, digest: int, event: bytes, at_ns: int) -> None:
        """Keep the time of a piece with text."""
        piece = event.partition(b"data: ")[2]
        if piece and piece != b"[DONE]" and (choices := decode(piece).choices) and choices[0].text:
            self.first_ns.setdefault(digest, at_ns)
            self.times_ns.append(at_ns)


class Raw(asyncio.Protocol):
    """One connection, one request after another."""

    def __init__(self, run: Run, done: asyncio.Future[None]) -> None:
        self._run, self._done = run, done
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        at_ns = time.monotonic_ns()
        *events, self._data = (self._data + data).split(b"\n\n")
        for event in events:
            self._run.take(self._digest, event, at_ns)
        if self._data.endswith(b"0\r\n\r\n"):
            self._data = b""
            self._run.ended += 1
            self._send()

    def _send(self) -> None:
        if self._run.begun < self._run.requests:
            self._digest, body = self._run.body()
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)
        elif self._run.ended == self._run.requests and not self._done.done():
            self._done.set_result(None)


async def run_raw(run: Run) -> None:
    """Ask all requests over bare protocols."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    for _ in range(run.connections):
        await loop.create_connection(lambda: Raw(run, done), "127.0.0.1", run.port)
    await done


async def run_aiohttp(run: Run) -> None:
    """Ask all requests with aiohttp, a line at a time."""
    import aiohttp

    async def slot() -> None:
        while run.begun < run.requests:
            digest, body = run.body()
            async with session.post(f"http://127.0.0.1:{run.port}/v1/completions", data=body) as answer:
                async for line in answer.content:
                    run.take(digest, line.strip(), time.monotonic_ns())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(slot() for _ in range(run.connections)))


if __name__ == "__main__":
    peer, *numbers = sys.argv[1:]
    asked = Run(*map(int, numbers))
    before_ns = time.process_time_ns()
    asyncio.run(run_raw(asked) if peer == "raw" else run_aiohttp(asked))
    cpu_ns = time.process_time_ns() - before_ns
    times = [[digest, asked.sent[digest], first_ns] for digest, first_ns in asked.first_ns.items()]
    print(json.dumps({"cpu_ns": cpu_ns, "tokens": len(asked.times_ns), "times": times}))
