"""When requests are due, in ns after the start of a load: drawn in full before the first is sent, the same for the same seed; or as a trace has them."""

import hashlib
import itertools
import math
import random
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from llem.errors import PlanError
from llem.plan import MAX_TOKENS
from llem.prompts import Prompt
from llem.units import NS_PER_MS, NS_PER_S

MAX_ARRIVALS = 10_000_000
Arrival = Literal["constant", "poisson", "gamma"]
# Of traces: JSON Lines of when requests came and how long they were, in the names of Mooncake's traces.
MAX_LINE_BYTES = 2**20
BLOCK_TOKENS = 512
_FIELDS = "timestamp (ms), input_length and output_length, perhaps hash_ids"


def arrivals_ns(
    arrival: Arrival,
    *,
    rate_per_s: float,
    burstiness: float = 1.0,
    ramp_s: float = 0.0,
    seed: int,
    requests: int,
    min_duration_s: float,
    max_duration_s: float | None = None,
) -> "array[int]":
    """The arrivals of an open loop: `requests` of them at least, and all until `min_duration_s`, none after `max_duration_s`.

    During a ramp the rate rises linearly from 0. Raises PlanError for more arrivals than anybody waits for.
    """
    require_countable(rate_per_s, min_duration_s=min_duration_s)
    end_s = math.inf if max_duration_s is None else max_duration_s
    due_ns = array("q")
    for work in _work(arrival, burstiness, random.Random(seed)):
        due_s = _time_of(work, rate_per_s=rate_per_s, ramp_s=ramp_s)
        if due_s > end_s or (len(due_ns) >= requests and due_s >= min_duration_s):
            return due_ns
        due_ns.append(round(due_s * NS_PER_S))
    return due_ns


def require_countable(rate_per_s: float, *, min_duration_s: float) -> None:
    """Raises PlanError for more arrivals than anybody waits for."""
    if rate_per_s * min_duration_s > MAX_ARRIVALS:
        raise PlanError(
            "the load is too large",
            found=f"{rate_per_s:g} requests/s for {min_duration_s:g} s",
            expected=f"at most {MAX_ARRIVALS} requests",
            hint="lower load.rate or workload.min_duration_s",
        )


def _work(arrival: Arrival, burstiness: float, rng: random.Random) -> Iterator[float]:
    """Endless arrivals at a rate of one, as the requests that were expected until each of them."""
    work = 0.0
    if arrival == "constant":
        while True:
            yield work
            work += 1.0
    while True:
        work += rng.expovariate(1.0) if arrival == "poisson" else rng.gammavariate(burstiness, 1 / burstiness)
        yield work


def _time_of(work: float, *, rate_per_s: float, ramp_s: float) -> float:
    """When so many requests were expected: the inverse of the integral of the rate."""
    if work < rate_per_s * ramp_s / 2:
        return math.sqrt(2 * ramp_s * work / rate_per_s)
    return work / rate_per_s + ramp_s / 2


def trace_ns(
    timestamps_ms: Sequence[float], *, time_scale: float, max_duration_s: float | None = None
) -> "array[int]":
    """The arrivals of a trace whose timestamps ascend: its first at 0, `time_scale` times as far apart, none after `max_duration_s`."""
    first_ms = timestamps_ms[0] if timestamps_ms else 0.0
    end_ns = math.inf if max_duration_s is None else max_duration_s * NS_PER_S
    due_ns = (round((at_ms - first_ms) * NS_PER_MS * time_scale) for at_ms in timestamps_ms)
    return array("q", itertools.takewhile(lambda at_ns: at_ns <= end_ns, due_ns))


def slots_ns(concurrency: int, *, ramp_s: float) -> "array[int]":
    """When each slot of a closed loop sends its first request: spread evenly over the ramp."""
    return array("q", (round(slot * ramp_s * NS_PER_S / concurrency) for slot in range(concurrency)))


def schedule_sha256(due_ns: Iterable[int]) -> str:
    """Digest of the arrivals as signed 64-bit little-endian integers."""
    columns = array("q", due_ns)
    if sys.byteorder == "big":
        columns.byteswap()
    return hashlib.sha256(columns.tobytes()).hexdigest()


class TracedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a trace; equal `hash_ids` are equal blocks of tokens. Further fields are not used."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


_decoder = msgspec.json.Decoder(TracedRequest)


def read_trace(path: Path) -> list[TracedRequest]:
    """The requests in the order of their times. Raises PlanError."""
    requests = sorted(_lines(path), key=lambda request: request.timestamp)
    if not requests:
        raise PlanError(f"trace {path}", found="no line", expected=f"JSON Lines of {_FIELDS}")
    return requests


def prompts_of(requests: list[TracedRequest], *, seed: int, is_warmup: bool) -> list[Prompt]:
    """A prompt of drawn tokens for each request, as long as in the trace and with the same blocks; a warm-up has blocks of its own."""
    return [
        Prompt(
            request_id=number,
            input_tokens=request.input_length,
            max_new_tokens=request.output_length,
            seed=seed + number,
            shared=tuple(_blocks(request, is_warmup=is_warmup)),
        )
        for number, request in enumerate(requests)
    ]


def _blocks(request: TracedRequest, *, is_warmup: bool) -> Iterator[tuple[int, int]]:
    """Seed and tokens of each block; the last may be cut, and what no block covers is the prompt's own."""
    left = request.input_length
    for block in request.hash_ids:
        tokens = min(BLOCK_TOKENS, left)
        if tokens == 0:
            return
        left -= tokens
        yield (-1 - block if is_warmup else block), tokens


def _lines(path: Path) -> Iterator[TracedRequest]:
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield _request(path, number, line)
    except OSError as error:
        raise PlanError(f"trace {path} cannot be read", found=error.strerror) from None


def _request(path: Path, number: int, line: bytes) -> TracedRequest:
    try:
        request = _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PlanError(f"trace {path}, line {number}", found=error, expected=_FIELDS) from None
    for name in ("input_length", "output_length"):
        if not 1 <= getattr(request, name) <= MAX_TOKENS:
            found = f"{name} {getattr(request, name)}"
            raise PlanError(f"trace {path}, line {number}", found=found, expected=f"1 to {MAX_TOKENS}")
    return request
