"""What the load process costs, all of it and its log, beside a bare protocol that does neither check nor log.

Three kinds of work, each against a fake server in a process of its own, ours and the peer's in turn: 16 paced streams (CPU-ms for 1,000
tokens), streams and requests as fast as they come (tokens and requests for a CPU second), 1,000 connections (memory).
"""

import json
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

from llem.measure.load_link import LoadLink
from llem.measure.messages import LoadDone, LoadSetup
from llem.plan_file import convert
from llem_events.events import LoadCompleted

ROUNDS = 3
PACED = {"ttft_ms": 50, "chunk_ms": 10}


class Work(NamedTuple):
    """What is asked of the fake server, and how it answers."""

    name: str
    behaviour: dict[str, float]
    connections: int
    requests: int
    tokens: int


class Cost(NamedTuple):
    """What a client used for what it got."""

    cpu_s: float
    tokens: int
    requests: int


WORK = (
    Work("paced", PACED, 16, 192, 128),
    Work("tokens", {}, 64, 1_600, 256),
    Work("requests", {}, 64, 30_000, 1),
    Work("connections", {}, 1_000, 4_000, 64),
)


def ours(port: int, work: Work) -> LoadCompleted:
    """The account of a load process that does this work."""
    plan = convert(
        {
            "workload": {
                "requests": work.requests,
                "min_duration_s": 0,
                "output_tokens": {"mean": work.tokens},
            },
            "load": {"concurrency": work.connections},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        setup = LoadSetup(
            experiment_id="bench",
            folder=folder,
            plan=plan,
            process_index=0,
            base_url=f"http://127.0.0.1:{port}",
            model="fake",
            vocabulary=(0, 1_000),
        )
        link = LoadLink(setup)
        link.start("measurement")
        while not isinstance(news := link.receive(), LoadDone):
            pass
        link.close()
    assert news.account.failed_requests == 0
    return news.account


def peer(port: int, work: Work) -> Cost:
    """The same by a bare protocol."""
    numbers = map(str, (port, work.connections, work.requests, work.tokens))
    command = [sys.executable, "-m", "benchmarks.raw_client", *numbers]
    cpu_ns, tokens, requests = map(int, subprocess.check_output(command, text=True).split())
    return Cost(cpu_ns / 1e9, tokens, requests)


def measure(work: Work) -> tuple[list[Cost], list[Cost], int]:
    """Costs of ours and of the peer over all rounds, and the most memory that ours took."""
    found: tuple[list[Cost], list[Cost]] = ([], [])
    peak_bytes = 0
    command = [sys.executable, "-m", "tests.load.fake_server", json.dumps(work.behaviour)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for _ in range(ROUNDS):
            account = ours(port, work)
            peak_bytes = max(peak_bytes, account.peak_memory_bytes or 0)
            found[0].append(Cost((account.cpu_time_ns or 0) / 1e9, account.output_tokens, account.requests))
            found[1].append(peer(port, work))
        server.terminate()
    return (*found, peak_bytes)


def main() -> None:
    """Print a line for each kind of work, the paced one last."""
    lines = []
    for work in WORK:
        costs, peer_costs, peak_bytes = measure(work)
        if work.name == "paced":
            unit, rate = "CPU-ms/1,000 tokens", lambda cost: cost.cpu_s * 1e6 / cost.tokens
        elif work.name == "requests":
            unit, rate = "requests/CPU s", lambda cost: cost.requests / cost.cpu_s
        else:
            unit, rate = "tokens/CPU s", lambda cost: cost.tokens / cost.cpu_s
        mine, theirs = (statistics.median(map(rate, each)) for each in (costs, peer_costs))
        lines.append(
            {
                "benchmark": f"load {work.name}",
                "ours": mine,
                "peer": theirs,
                "ratio": theirs / mine if work.name == "paced" else mine / theirs,
                "unit": unit,
                "n": ROUNDS,
                "peak_mb": peak_bytes / 2**20,
            }
        )
    for line in sorted(lines, key=lambda line: line["benchmark"] == "load paced"):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
