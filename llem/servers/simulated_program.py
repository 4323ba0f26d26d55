"""The simulated server as a program: HTTP and SSE on asyncio, one chunk after another at the plan's times."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from llem.plan import SimulatedServerPlan
from llem.units import MS_PER_S

MAX_HEAD_BYTES = 2**16
MAX_BODY_BYTES = 2**26
DEFAULT_TOKENS = 16
CRASHED = 3
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion's request says."""

    prompt: Any = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None

    @property
    def input_tokens(self) -> int:
        """A number in a list is a token, and so is a byte of a text."""
        if isinstance(self.prompt, list):
            return len(self.prompt)
        texts = [self.prompt] if isinstance(self.prompt, str) else []
        texts += [str(message.get("content") or "") for message in self.messages or ()]
        return max(1, sum(len(text.encode()) for text in texts))

    @property
    def output_tokens(self) -> int:
        asked = self.max_completion_tokens or self.max_tokens
        return DEFAULT_TOKENS if asked is None else asked

    @property
    def wants_usage(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))


class Times:
    """The plan's delays, spread by its jitter; seeded by the number of the request."""

    def __init__(self, plan: SimulatedServerPlan, number: int) -> None:
        self._plan, self._rng = plan, random.Random(f"{plan.seed}:{number}")

    def prefill_s(self) -> float:
        return self._spread(self._plan.prefill_ms) / MS_PER_S

    def tokens_s(self, count: int) -> float:
        return self._spread(self._plan.token_ms) * count / MS_PER_S

    def _spread(self, delay_ms: float) -> float:
        return delay_ms * self._rng.uniform(1 - self._plan.jitter, 1 + self._plan.jitter)


class SimulatedProgram:
    """Its counters, its slots and its answers."""

    def __init__(self, plan: SimulatedServerPlan) -> None:
        self._plan = plan
        self._slots = asyncio.Semaphore(plan.slots or 2**31)
        self._ready_s = time.monotonic() + plan.load_ms / MS_PER_S
        self._requests = self._running = self._input_tokens = self._output_tokens = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept as long as its peer keeps it."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while await self._answer(reader, writer):
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read a request and answer it; whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.partition("\r\n")[0].split(" ", 2)
        length = int(next(_header(head, "content-length"), "0"))
        body = await reader.readexactly(min(length, MAX_BODY_BYTES))
        match method, path.partition("?")[0]:
            case "GET", "/health":
                is_ready = time.monotonic() >= self._ready_s
                _whole(writer, 200 if is_ready else 503, {"status": "ok" if is_ready else "loading"})
            case "GET", "/metrics":
                _whole(writer, 200, self._metrics())
            case "GET", "/v1/models":
                _whole(writer, 200, {"object": "list", "data": [{"id": "simulated", "object": "model"}]})
            case "POST", "/v1/completions":
                await self._complete(writer, body, chat=False)
            case "POST", "/v1/chat/completions":
                await self._complete(writer, body, chat=True)
            case _:
                _whole(writer, 404, {"error": {"message": f"no {path} here"}})
        return next(_header(head, "connection"), "").lower() != "close"

    async def _complete(self, writer: asyncio.StreamWriter, body: bytes, *, chat: bool) -> None:
        try:
            asked = msgspec.json.decode(body, type=Asked)
        except msgspec.MsgspecError as error:
            _whole(writer, 400, {"error": {"message": str(error)}})
            return
        self._requests += 1
        self._crash_if_due()
        if self._requests in self._plan.fail_requests:
            _whole(writer, 500, {"error": {"message": "failed as server.simulated.fail_requests asks"}})
            return
        async with self._slots:
            self._running += 1
            try:
                await self._generate(writer, asked, Times(self._plan, self._requests), chat=chat)
            finally:
                self._running -= 1

    async def _generate(
        self, writer: asyncio.StreamWriter, asked: Asked, times: Times, *, chat: bool
    ) -> None:
        """Every chunk at its deadline, so that delays of the machine do not add up."""
        self._input_tokens += asked.input_tokens
        if asked.stream:
            writer.write(_HEAD_OF_STREAM)
        due_s = time.monotonic() + times.prefill_s()
        written = 0
        while written < asked.output_tokens:
            await _until(due_s)
            tokens = min(self._plan.tokens_per_chunk, asked.output_tokens - written)
            written += tokens
            self._output_tokens += tokens
            if asked.stream:
                writer.write(_event(_piece("x" * tokens, chat=chat, is_last=written >= asked.output_tokens)))
                await writer.drain()
            due_s += times.tokens_s(self._plan.tokens_per_chunk)
        usage = _usage(asked.input_tokens, round(written * (1 + self._plan.overstates)))
        if asked.stream:
            last = _event({"choices": [], "usage": usage}) if asked.wants_usage else b""
            writer.write(last + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            _whole(writer, 200, {**_piece("x" * written, chat=chat, is_last=True), "usage": usage})

    def _crash_if_due(self) -> None:
        if self._plan.crash_after_requests is not None and self._requests > self._plan.crash_after_requests:
            sys.stderr.write("crashed as server.simulated.crash_after_requests asks\n")
            sys.stderr.flush()
            os._exit(CRASHED)

    def _metrics(self) -> str:
        counters = {
            "prompt_tokens_total": self._input_tokens,
            "generation_tokens_total": self._output_tokens,
            "requests_total": self._requests,
            "requests_running": self._running,
        }
        return "".join(f"simulated:{name} {number}\n" for name, number in counters.items())


def _header(head: str, name: str) -> Iterator[str]:
    for line in head.split("\r\n")[1:]:
        key, _, text = line.partition(":")
        if key.lower() == name:
            yield text.strip()


_HEAD_OF_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def _event(fields: dict[str, Any]) -> bytes:
    return _chunk(
        b"data: " + msgspec.json.encode({"object": "chunk", "model": "simulated", **fields}) + b"\n\n"
    )


def _piece(text: str, *, chat: bool, is_last: bool) -> dict[str, Any]:
    said = {"delta": {"content": text}, "message": {"content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, **said, "finish_reason": "length" if is_last else None}]}


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def _whole(writer: asyncio.StreamWriter, status: int, content: dict[str, Any] | str) -> None:
    body = content.encode() if isinstance(content, str) else msgspec.json.encode(content)
    kind = "text/plain" if isinstance(content, str) else "application/json"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)


async def _until(deadline_s: float) -> None:
    if (left_s := deadline_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s)


async def _run(host: str, port: int, plan: SimulatedServerPlan) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    program = SimulatedProgram(plan)
    server = await asyncio.start_server(program.serve, host, port, limit=MAX_HEAD_BYTES, backlog=4096)
    async with server:
        await ended.wait()


def main() -> None:
    """Serves until SIGTERM."""
    host, port, times = sys.argv[1:4]
    asyncio.run(_run(host, int(port), msgspec.json.decode(times, type=SimulatedServerPlan)))


if __name__ == "__main__":
    main()
