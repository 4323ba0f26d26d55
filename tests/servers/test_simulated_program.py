"""The simulated server speaks what real ones speak, at the times that the plan gives it."""

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.measure.scraper import parse
from llem.servers.address import Address
from tests.conftest import LIMIT_S, wait_until
from tests.servers.programs import simulated

PROMPT = {"model": "simulated", "prompt": [1, 2, 3, 4, 5]}


def _stream(address: Address, path: str, asked: dict[str, Any]) -> list[tuple[float, dict[str, Any] | None]]:
    """Seconds after the request and the fields of every event; None for the one that ends the stream."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=LIMIT_S)
    begun = time.monotonic()
    connection.request("POST", path, msgspec.json.encode(asked | {"stream": True}))
    answer = connection.getresponse()
    events: list[tuple[float, dict[str, Any] | None]] = []
    while line := answer.readline():
        if line.startswith(b"data: "):
            text = line[6:].strip()
            fields = None if text == b"[DONE]" else msgspec.json.decode(text)
            events.append((time.monotonic() - begun, fields))
    connection.close()
    return events


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", PROMPT),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    ],
)
def test_a_stream_has_its_tokens_at_their_times_and_its_usage(
    tmp_path: Path, path: str, asked: dict[str, Any]
) -> None:
    """The first after the prefill, every later one a token's time after the one before."""
    with simulated(tmp_path, prefill_ms=100.0, token_ms=20.0, tokens_per_chunk=2) as process:
        wanted = asked | {"max_tokens": 5, "stream_options": {"include_usage": True}}
        *chunks, (_, usage), (_, end) = _stream(process.address, path, wanted)
    assert end is None and usage is not None
    assert usage["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    assert len(chunks) == 3
    assert chunks[0][0] >= 0.1 and chunks[-1][0] >= 0.1 + 2 * 0.04
    reasons = [fields["choices"][0]["finish_reason"] for _, fields in chunks if fields]
    assert reasons == [None, None, "length"]


def test_its_counters_are_what_it_did(tmp_path: Path) -> None:
    """Tokens of prompts and answers, and requests."""
    with simulated(tmp_path, prefill_ms=1.0, token_ms=1.0) as process:
        for _ in range(3):
            process.address.post("/v1/completions", PROMPT | {"max_tokens": 4}, timeout_s=LIMIT_S)
        found = parse(process.address.get("/metrics", timeout_s=LIMIT_S).body.decode())
    assert found["simulated:prompt_tokens_total"] == 15
    assert found["simulated:generation_tokens_total"] == 12
    assert found["simulated:requests_total"] == 3


def test_requests_wait_for_a_slot(tmp_path: Path) -> None:
    """Two of a tenth of a second take two tenths where one runs at a time."""
    with simulated(tmp_path, prefill_ms=100.0, slots=1) as process, ThreadPoolExecutor(2) as pool:
        begun = time.monotonic()
        asked = PROMPT | {"max_tokens": 1}
        answers = [
            pool.submit(process.address.post, "/v1/completions", asked, timeout_s=LIMIT_S) for _ in range(2)
        ]
        assert all(answer.result().is_good for answer in answers)
        assert time.monotonic() - begun >= 0.2


def test_it_fails_and_ends_as_planned(tmp_path: Path) -> None:
    """A status 500 for a request, and its own end after some."""
    with simulated(tmp_path, fail_requests=[1], crash_after_requests=2) as process:
        asked = PROMPT | {"max_tokens": 1}
        statuses = [
            process.address.post("/v1/completions", asked, timeout_s=LIMIT_S).status for _ in range(2)
        ]
        assert statuses == [500, 200]
        with pytest.raises(OSError):
            process.address.post("/v1/completions", asked, timeout_s=LIMIT_S)
        wait_until(lambda: not process.address.is_open(timeout_s=LIMIT_S))
        assert process.last_lines() == ["crashed as server.simulated.crash_after_requests asks"]


def test_what_it_does_not_know_is_refused(tmp_path: Path) -> None:
    """With the status that others have for it."""
    with simulated(tmp_path) as process:
        assert process.address.get("/v2/else", timeout_s=LIMIT_S).status == 404
        assert (
            process.address.post("/v1/completions", {"max_tokens": "many"}, timeout_s=LIMIT_S).status == 400
        )
