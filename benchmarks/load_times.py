"""How right the times of a load process are, in several rounds, of which the best says what it can do where other programs leave it the machine.

An early empty piece, a first token after 200 ms and then 4 tokens every 20 ms: the time to the first token, the time of each further one, the
longest gap. And 200 requests a second for 30 s at Poisson's times: the rate, the intervals beside those drawn (Kolmogorov and Smirnov), and how
late requests were sent.
"""

import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from llem.measure.messages import LoadDone
from llem.plan import Plan
from llem.units import NS_PER_MS, NS_PER_S
from llem_events.events import LoadCompleted, Request, RequestsCompleted
from tests.load.runs import events_of, load_plan, serving, start

ROUNDS = 5
CHUNK = 4
EARLY_ROLE = {
    "ttft_ms": 200,
    "chunk_ms": 20,
    "tokens_per_chunk": CHUNK,
    "early_role": True,
    "continuous_usage": True,
}


def asked(url: str, plan: Plan) -> tuple[list[Request], LoadCompleted]:
    """The requests of one window, in the order of sending, and what its load process says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        link = start(Path(folder), url, plan)
        link.start("measurement")
        while not isinstance(news := link.receive(), LoadDone):
            pass
        link.close()
        told = [event.requests for event in events_of(Path(folder)) if isinstance(event, RequestsCompleted)]
    return sorted(
        (request for each in told for request in each), key=lambda request: request.start_ns
    ), news.account


def paced() -> dict[str, float]:
    """Means over 16 requests of 64 tokens, four at a time."""
    with serving(**EARLY_ROLE) as url:
        requests, _ = asked(url, load_plan({"concurrency": 4}, requests=16, tokens=64))
    gaps_ms = [
        (after - before) / NS_PER_MS for each in requests for before, after in pairwise(each.chunk_times_ns)
    ]
    return {
        "ttft_ms": statistics.fmean(
            (each.chunk_times_ns[0] - each.arrival_ns) / NS_PER_MS for each in requests
        ),
        "token_ms": statistics.fmean(map(token_ms, requests)),
        "longest_gap_ms": max(gaps_ms),
    }


def token_ms(request: Request) -> float:
    """From the first piece to the last, for each token after those of the first."""
    first_ns, *_, last_ns = request.chunk_times_ns
    return (last_ns - first_ns) / NS_PER_MS / (request.output_tokens - CHUNK)


def poisson() -> dict[str, float]:
    """200 requests a second for half a minute, of one token each."""
    load = {"kind": "open", "rate": 200.0, "arrival": "poisson"}
    with serving() as url:
        requests, account = asked(url, load_plan(load, requests=1, tokens=1, min_duration_s=30))
    due_ns, sent_ns = (
        np.sort([getattr(each, name) for each in requests]) for name in ("arrival_ns", "start_ns")
    )
    due_s, sent_s = (float(times[-1] - times[0]) / NS_PER_S for times in (due_ns, sent_ns))
    assert account.send_lag_p99_ns is not None
    return {
        "rate_off_percent": 100 * abs(due_s / sent_s - 1),
        "ks_p": same_distribution_p(np.diff(due_ns), np.diff(sent_ns)),
        "send_lag_p99_ms": account.send_lag_p99_ns / NS_PER_MS,
    }


def same_distribution_p(ones: Any, others: Any) -> float:
    """Of the two-sample test of Kolmogorov and Smirnov, asymptotic: Numerical Recipes, 14.3."""
    both = np.sort(np.concatenate((ones, others)))
    shares = [np.searchsorted(np.sort(sample), both, side="right") / len(sample) for sample in (ones, others)]
    root = math.sqrt(len(ones) * len(others) / (len(ones) + len(others)))
    distance = (root + 0.12 + 0.11 / root) * float(np.max(np.abs(shares[0] - shares[1])))
    terms = (2 * (-1) ** (term - 1) * math.exp(-2 * (term * distance) ** 2) for term in range(1, 101))
    return 1.0 if distance < 0.2 else min(1.0, sum(terms))


def best(name: str, rounds: Sequence[dict[str, float]], by: str) -> None:
    """Print all rounds, and the one in which the machine disturbed least."""
    found = min(rounds, key=lambda told: told[by])
    print(json.dumps({"benchmark": f"load_times {name}", "n": len(rounds), "best": found, "all": rounds}))


if __name__ == "__main__":
    best("paced", [paced() for _ in range(ROUNDS)], "longest_gap_ms")
    best("poisson", [poisson() for _ in range(ROUNDS)], "send_lag_p99_ms")
