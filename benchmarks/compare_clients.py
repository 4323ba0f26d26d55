"""llem beside aiperf, guidellm and vllm bench: the same work, the same server, in turn, and how wrong each is and what it costs.

    python -m benchmarks.compare_clients [--rounds N] [CLIENT ...]

The truth is what the fake server wrote down of each answer: when it read the request, when it wrote the first and the last piece. A client's
requests and the server's are paired in the order in which they were sent; an error is the client's figure less the server's. CPU time is that of
the whole command and all it starts; for 1,000 tokens it is the slope between a run of 16 and one of 192 requests, and what is left at no
token is what the command costs outside its window. What cannot be installed or run is named at the end, and the others go on.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

import llem
from benchmarks.clients import (
    aiperf,
    environment,
    guidellm,
    llem_measure,
    tokenizer,
    vllm_bench,
    whole_command,
)
from benchmarks.clients.client import Client, Told, Work
from tests.load.fake_server import Answered
from tests.load.runs import serving

CLIENTS = (llem_measure.CLIENT, aiperf.CLIENT, guidellm.CLIENT, vllm_bench.CLIENT)
PACED = {"ttft_ms": 50, "chunk_ms": 10, "continuous_usage": True}
EARLY = {"ttft_ms": 200, "chunk_ms": 20, "tokens_per_chunk": 4, "early_role": True, "continuous_usage": True}
SMALL = Work("short", PACED, requests=16, tokens=128, in_flight=16)
WORKS = (
    Work("paced", PACED, requests=192, tokens=128, in_flight=16),
    SMALL,
    Work("early role", EARLY, requests=64, tokens=128, in_flight=16),
    Work("queue", {"ttft_ms": 500}, requests=8, tokens=1, in_flight=1, rate_per_s=10),
)
TIMEOUT_S = 300


class ClientError(Exception):
    """A client that could not do its work, with what it said last."""


class Pair(NamedTuple):
    """One request as a client tells it, and as the server does."""

    told: Told
    truth: Answered
    due_ns: float


class Ran(NamedTuple):
    """One run of one client."""

    pairs: list[Pair]
    cpu_s: float
    peak_bytes: int


Runs = dict[tuple[str, str], list[Ran]]


def truth_ttft_ms(truth: Answered) -> float:
    return (truth.first_ns - truth.read_ns) / 1e6


def truth_itl_ms(truth: Answered) -> float | None:
    """For each token after the first piece."""
    later = truth.tokens - truth.first_tokens
    return (truth.last_ns - truth.first_ns) / 1e6 / later if later else None


def ttft_error_ms(pair: Pair) -> float | None:
    told = pair.told.ttft_ms
    return None if told is None else told - truth_ttft_ms(pair.truth)


def itl_error_ms(pair: Pair) -> float | None:
    told, truth = pair.told.itl_ms, truth_itl_ms(pair.truth)
    return None if told is None or truth is None else told - truth


def e2e_error_ms(pair: Pair) -> float:
    return pair.told.e2e_ms - (pair.truth.last_ns - pair.truth.read_ns) / 1e6


def due_error_ms(pair: Pair) -> float | None:
    told = pair.told.due_e2e_ms
    return None if told is None else told - (pair.truth.last_ns - pair.due_ns) / 1e6


def paired(told: Iterable[Told], answers: Iterable[Answered], work: Work) -> list[Pair]:
    """In the order in which they were sent; what a client asks before its run came first."""
    told = sorted(told, key=lambda request: request.start_ns)
    truths = sorted(answers, key=lambda answer: answer.read_ns)[-len(told) :]
    if len(told) != work.requests or len(truths) != work.requests:
        raise ClientError(f"{len(told)} of {work.requests} requests are in its files")
    gap_ns = 0 if work.rate_per_s is None else 1e9 / work.rate_per_s
    due_ns = (truths[0].read_ns + number * gap_ns for number in range(len(truths)))
    return [Pair(*row) for row in zip(told, truths, due_ns, strict=True)]


def run(client: Client, work: Work, folder: Path) -> Ran:
    """One run against a server of its own. Raises ClientError."""
    folder.mkdir()
    tokenizer.write(folder / "tokenizer")
    times, used = folder / "times", folder / "used.json"
    programs = (
        Path(sys.executable).parent if client.package is None else environment.programs_of(client.package)
    )
    with serving(**work.behaviour, times=str(times)) as url:
        command = [
            *(sys.executable, "-S", "-E", whole_command.__file__, used),
            *client.command(programs, url, work, folder),
        ]
        _call(list(map(str, command)), folder, client)
    answers = [msgspec.json.decode(line, type=Answered) for line in times.read_bytes().splitlines()]
    return Ran(paired(client.read(folder), answers, work), **json.loads(used.read_text()))


def _call(command: Sequence[str], folder: Path, client: Client) -> None:
    """Raises ClientError; what hangs is killed with its process group."""
    variables = {**os.environ, **client.variables}
    with (
        (folder / "output").open("w+") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        output.seek(0)
        said = output.read().strip().splitlines()
    if status != 0:
        raise ClientError(f"exit status {status}: {said[-1] if said else 'it said nothing'}")


def measure(clients: Sequence[Client], rounds: int) -> tuple[Runs, dict[str, str]]:
    """Every work by every client in turn; and why a client does not go on, by its name."""
    runs: Runs = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for work in WORKS:
                for client in clients:
                    if client.name in failed:
                        continue
                    place = Path(folder) / f"{number}-{work.name}-{client.name}".replace(" ", "-")
                    try:
                        ran = run(client, work, place)
                    except (
                        ClientError,
                        OSError,
                        LookupError,
                        ValueError,
                        subprocess.SubprocessError,
                    ) as error:
                        failed[client.name] = f"{work.name}: {_reason(error)}"
                        continue
                    runs.setdefault((client.name, work.name), []).append(ran)
                    print(
                        f"round {number + 1}, {work.name}, {client.name}: {ran.cpu_s:.1f} CPU s",
                        file=sys.stderr,
                    )
    return runs, failed


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error) or type(error).__name__
    return said.strip().splitlines()[-1]


Figure = Callable[[Runs, str, str], float | None]


class Column(NamedTuple):
    """One figure of the table; two clients whose figures are no further apart than `tie`, or 5 %, are equal."""

    title: str
    figure: Figure
    tie: float


def error_at(quantile: float, error_of: Callable[[Pair], float | None]) -> Figure:
    """A quantile of how far a client is off, either way: over all requests of all rounds."""

    def figure(runs: Runs, client: str, work: str) -> float | None:
        errors = [error_of(pair) for ran in runs.get((client, work), ()) for pair in ran.pairs]
        sizes = sorted(abs(error) for error in errors if error is not None)
        return sizes[min(int(len(sizes) * quantile), len(sizes) - 1)] if sizes else None

    return figure


def due_error(runs: Runs, client: str, work: str) -> float | None:
    """The largest, where requests were due at a rate."""
    is_open = any(each.name == work and each.rate_per_s is not None for each in WORKS)
    return error_at(1.0, due_error_ms)(runs, client, work) if is_open else None


def miscounted(runs: Runs, client: str, work: str) -> float | None:
    """Tokens that a client counts too many or too few, of a thousand."""
    pairs = [pair for ran in runs.get((client, work), ()) for pair in ran.pairs]
    off = sum(abs(pair.told.tokens - pair.truth.tokens) for pair in pairs)
    return off * 1e3 / sum(pair.truth.tokens for pair in pairs) if pairs else None


def line(runs: Runs, client: str) -> tuple[float, float] | None:
    """CPU s for each token, and at none: the medians of two sizes of one work decide."""
    points = []
    for work in (SMALL, WORKS[0]):
        found = runs.get((client, work.name))
        if not found:
            return None
        points.append((work.requests * work.tokens, statistics.median(ran.cpu_s for ran in found)))
    (tokens, cpu_s), (more_tokens, more_cpu_s) = points
    slope = (more_cpu_s - cpu_s) / (more_tokens - tokens)
    return slope, cpu_s - slope * tokens


def cpu_ms(runs: Runs, client: str, work: str) -> float | None:
    """For 1,000 streamed tokens."""
    found = line(runs, client) if work == WORKS[0].name else None
    return None if found is None else found[0] * 1e6


def cpu_outside_s(runs: Runs, client: str, work: str) -> float | None:
    """What the whole command takes without any token."""
    found = line(runs, client) if work == WORKS[0].name else None
    return None if found is None else found[1]


def peak_mb(runs: Runs, client: str, work: str) -> float | None:
    """Of the largest process."""
    found = runs.get((client, work))
    return max(ran.peak_bytes for ran in found) / 2**20 if found else None


COLUMNS = (
    Column("TTFT error, ms", error_at(0.5, ttft_error_ms), 0.1),
    Column("TTFT error p99, ms", error_at(0.99, ttft_error_ms), 1.0),
    Column("ITL error, ms", error_at(0.5, itl_error_ms), 0.01),
    Column("ITL error p99, ms", error_at(0.99, itl_error_ms), 0.05),
    Column("E2E error, ms", error_at(0.5, e2e_error_ms), 0.1),
    Column("E2E error p99, ms", error_at(0.99, e2e_error_ms), 1.0),
    Column("E2E from due, largest error, ms", due_error, 10.0),
    Column("miscounted of 1,000 tokens", miscounted, 0.0),
    Column("CPU-ms/1,000 tokens", cpu_ms, 0.0),
    Column("CPU s outside the window", cpu_outside_s, 0.0),
    Column("peak of the largest process, MB", peak_mb, 0.0),
)


def rows(runs: Runs, clients: Sequence[str]) -> Iterator[list[str]]:
    """A row for each work and client."""
    for work in WORKS:
        if work is not SMALL:
            for client in clients:
                if (client, work.name) in runs:
                    figures = (column.figure(runs, client, work.name) for column in COLUMNS)
                    yield [work.name, client, *("" if value is None else f"{value:.3g}" for value in figures)]


def beaten(runs: Runs, clients: Sequence[str]) -> Iterator[str]:
    """Where another client is better than llem."""
    for work in WORKS:
        for column in COLUMNS if work is not SMALL else ():
            ours = column.figure(runs, "llem", work.name)
            for client in clients:
                theirs = column.figure(runs, client, work.name)
                if ours is not None and theirs is not None and ours > max(theirs * 1.05, theirs + column.tie):
                    yield f"{work.name}, {column.title}: {client} {theirs:.3g}, llem {ours:.3g}"


def show(runs: Runs, failed: dict[str, str], names: Sequence[str]) -> None:
    """The table, what failed, and where llem is not the best."""
    titles = ["work", "client", *(column.title for column in COLUMNS)]
    for row in (titles, ["---"] * len(titles), *rows(runs, names)):
        print("|", " | ".join(row), "|")
    for name, reason in failed.items():
        print(f"{name} did not go on: {reason}")
    if "llem" in failed or "llem" not in names:
        return
    print("\n".join(beaten(runs, names)) or "llem is best or equal in every column")


def version_of(client: Client) -> str:
    """With its name."""
    number = llem.__version__ if client.package is None else environment.version_of(client.package)
    return f"{client.name} {number or 'not installed'}"


def main() -> None:
    """Install, measure, print."""
    names = [client.name for client in CLIENTS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("clients", nargs="*", default=names, metavar="CLIENT", help=", ".join(names))
    asked = parser.parse_args()
    clients = [client for client in CLIENTS if client.name in asked.clients]
    runs, failed = measure(clients, asked.rounds)
    print(
        ", ".join(map(version_of, clients)),
        f"{asked.rounds} rounds",
        f"load {os.getloadavg()[1]:.1f}",
        sep="; ",
    )
    show(runs, failed, [client.name for client in clients])


if __name__ == "__main__":
    main()
