"""What the load process costs, all of it and its log, and how right its times are, beside clients that neither check nor log.

Five kinds of work against a fake server in a process of its own, the clients in turn: 16 paced streams (CPU-ms for 1,000 tokens; how far
the time to the first token is from the server's own), streams and requests as fast as they come (tokens and requests for a CPU second), the
same streams from a server that writes each answer at once, so that no client waits for it, 1,000 connections (memory). The peers are `benchmarks.load_peers`; aiohttp is one of them where it is installed.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from llem.load.offers import Schedules
from llem.load.openai import Server, Source
from llem.measure.load_link import LoadLink
from llem.measure.messages import LoadDone, LoadSetup
from llem.plan import Plan
from llem.plan_file import convert
from llem_events import SegmentReader, unpack
from llem_events.events import RequestsCompleted
from tests.load.fake_server import Answered
from tests.load.runs import serving

ROUNDS = 3
VOCABULARY = (0, 1_000)


class Work(NamedTuple):
    """What is asked of the fake server, and how it answers."""

    name: str
    unit: str
    behaviour: dict[str, float]
    connections: int
    requests: int
    tokens: int


class Ran(NamedTuple):
    """What a client used, and digest -> time to the first token of each request, ns from when it was sent."""

    cpu_s: float
    tokens: int
    requests: int
    ttft_ns: dict[int, int]
    peak_bytes: int | None


WORK = (
    Work("tokens", "tokens/CPU s", {}, 64, 800, 256),
    Work("bursts", "tokens/CPU s", {"is_joined": True}, 64, 800, 256),
    Work("requests", "requests/CPU s", {}, 64, 12_000, 1),
    Work("connections", "tokens/CPU s", {}, 1_000, 2_000, 64),
    Work("paced", "CPU-ms/1,000 tokens", {"ttft_ms": 50, "chunk_ms": 10}, 16, 192, 128),
)


def figure(work: Work, ran: Ran) -> float:
    """What a run says in the unit of its work."""
    if work.name == "paced":
        return ran.cpu_s * 1e6 / ran.tokens
    return (ran.requests if work.name == "requests" else ran.tokens) / ran.cpu_s


def ours(url: str, work: Work) -> Ran:
    """A load process does the work."""
    asked = {"requests": work.requests, "min_duration_s": 0, "output_tokens": {"mean": work.tokens}}
    plan = convert({"workload": asked, "load": {"concurrency": work.connections}})
    with tempfile.TemporaryDirectory() as folder:
        setup = LoadSetup(
            experiment_id="bench",
            folder=folder,
            plan=plan,
            process_index=0,
            base_url=url,
            model="fake",
            vocabulary=VOCABULARY,
        )
        link = LoadLink(setup)
        link.start("measurement")
        while not isinstance(news := link.receive(), LoadDone):
            pass
        link.close()
        times_ns = _times_ns(next(Path(folder).iterdir()), plan, url)
    account = news.account
    assert account.failed_requests == 0
    cpu_s = (account.cpu_time_ns or 0) / 1e9
    return Ran(cpu_s, account.output_tokens, account.requests, times_ns, account.peak_memory_bytes)


def _times_ns(segment: Path, plan: Plan, url: str) -> dict[int, int]:
    """Of each request in a segment, by the digest of what it sent."""
    server = Server(base_url=url, model="fake", body={}, api_key_env=None, vocabulary=VOCABULARY)
    source = Source(plan, Schedules(plan).prompts, server)
    found = {}
    with SegmentReader(segment) as reader:
        for envelope in (each for block in reader.blocks() for each in reader.events(block)):
            event = unpack(envelope)
            for request in event.requests if isinstance(event, RequestsCompleted) else ():
                body = source.request(request.request_id)[1].body
                assert request.first_token_ns is not None
                found[zlib.crc32(body)] = request.first_token_ns - request.start_ns
    return found


def peer(name: str, url: str, work: Work) -> Ran:
    """The same by another client."""
    numbers = map(str, (urlsplit(url).port, work.connections, work.requests, work.tokens))
    printed = subprocess.check_output([sys.executable, "-m", "benchmarks.load_peers", name, *numbers])
    told = json.loads(printed)
    ttft_ns = {digest: first_ns - sent_ns for digest, sent_ns, first_ns in told["times"]}
    return Ran(told["cpu_ns"] / 1e9, told["tokens"], work.requests, ttft_ns, None)


def errors_ms(times: Path, ran: Ran) -> list[float]:
    """How far each time to the first token is from the server's own, between its reading and its writing."""
    answers = [msgspec.json.decode(line, type=Answered) for line in times.read_bytes().splitlines()]
    times.unlink()
    return [(ran.ttft_ns[told.digest] - (told.first_ns - told.read_ns)) / 1e6 for told in answers]


def measure(work: Work, peers: Sequence[str]) -> dict[str, list[tuple[Ran, list[float]]]]:
    """Every client in turn, ROUNDS times: what it used, and its errors."""
    found: dict[str, list[tuple[Ran, list[float]]]] = {name: [] for name in ("llem", *peers)}
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times"
        behaviour = work.behaviour | ({"times": str(times)} if work.name == "paced" else {})
        with serving(**behaviour) as url:
            for _ in range(ROUNDS):
                for name, runs in found.items():
                    ran = ours(url, work) if name == "llem" else peer(name, url, work)
                    runs.append((ran, errors_ms(times, ran) if work.name == "paced" else []))
    return found


def main() -> None:
    """Print what each client used for each kind of work, and last our paced streams beside the bare protocol's."""
    peers = ["raw", *(["aiohttp"] if importlib.util.find_spec("aiohttp") else [])]
    for work in WORK:
        found = measure(work, peers if work.name != "connections" else ["raw"])
        figures = {
            name: statistics.median(figure(work, ran) for ran, _ in runs) for name, runs in found.items()
        }
        peaks = [ran.peak_bytes for ran, _ in found["llem"] if ran.peak_bytes is not None]
        line = {"benchmark": f"load {work.name}", "ours": figures["llem"], "peer": figures["raw"]}
        if work.name == "paced":
            for name, runs in found.items():
                errors = sorted(error for _, round_errors in runs for error in round_errors)
                line[f"ttft_error_ms_{name}"] = [statistics.median(errors), errors[int(len(errors) * 0.99)]]
        ratio = figures["raw"] / figures["llem"] if work.name == "paced" else figures["llem"] / figures["raw"]
        line |= {"ratio": ratio, "unit": work.unit, "n": ROUNDS, "peak_mb": max(peaks) / 2**20}
        print(json.dumps(line | {f"peer_{name}": figures[name] for name in peers[1:] if name in figures}))


if __name__ == "__main__":
    main()
