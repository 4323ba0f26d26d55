"""Whole windows of load against the fake server: by the client alone, and by a load process."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from llem.load.answer import Answer
from llem.load.client import Client, Rules, new_loop
from llem.load.http1 import Pool, Target
from llem.load.offers import Schedules
from llem.load.openai import Server, Source
from llem.measure.load_link import LoadLink
from llem.measure.messages import LoadSetup
from llem.plan import Plan
from llem.plan_file import convert
from llem_events import SegmentReader, UnknownEvent, unpack
from llem_events.events import Event, Request
from llem_events.request_events import times_problem
from tests.load.fake_server import Behaviour, FakeServer


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.progress: list[tuple[int, list[int]]] = []
        self.ages_ns: list[int] = []  # of the oldest chunk, each time

    def completed(self, request: Request) -> None:
        assert times_problem(request) is None
        self.requests.append(request)

    def progressed(self, answer: Answer, times_ns: list[int], tokens: list[int | None]) -> None:
        assert len(times_ns) == len(tokens)
        self.progress.append((answer.request_id, times_ns))
        self.ages_ns.append(time.monotonic_ns() - times_ns[0])

    def flush(self) -> None:
        """Nothing is kept back."""


class Ran(msgspec.Struct):
    """What a window of load left behind."""

    requests: list[Request]
    progress: list[tuple[int, list[int]]]
    ages_ns: list[int]
    client: Any
    pool: Any
    server: FakeServer


def load_plan(load: dict[str, Any], *, requests: int = 8, tokens: int = 8, **workload: Any) -> Plan:
    """A plan of so many requests of so many tokens, that ends with the last of them."""
    asked = {"requests": requests, "min_duration_s": 0, "output_tokens": {"mean": tokens}}
    return convert({"load": load, "workload": asked | workload})


def offer(
    behaviour: Behaviour,
    plan: Plan,
    *,
    url: str | None = None,
    meanwhile: Callable[[Client], None] | None = None,
    max_failed_in_a_row: int = 1_000,
    body: dict[str, Any] | None = None,
    vocabulary: tuple[int, int] | None = (10, 1_000),
) -> Ran:
    """One window of the plan against the fake, or against `url`; `meanwhile` is called once it runs."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(
            _offer(behaviour, plan, url, meanwhile, max_failed_in_a_row, body or {}, vocabulary)
        )


async def _offer(
    behaviour: Behaviour,
    plan: Plan,
    url: str | None,
    meanwhile: Callable[[Client], None] | None,
    max_failed_in_a_row: int,
    body: dict[str, Any],
    vocabulary: tuple[int, int] | None,
) -> Ran:
    async with FakeServer(behaviour) as server:
        place = url or server.url
        schedules = Schedules(plan)
        asked = Server(base_url=place, model="fake", body=body, api_key_env=None, vocabulary=vocabulary)
        source = Source(plan, schedules.prompts, asked)
        pool, kept = Pool(Target(place)), Kept()
        rules = Rules(
            drain_s=plan.load.drain_s,
            timeout_s=plan.load.timeout_s,
            max_failed_in_a_row=max_failed_in_a_row,
            keeps_text=plan.workload.record_text,
        )
        client = Client(pool, source.request, kept, rules)
        if meanwhile is not None:
            asyncio.get_running_loop().call_soon(meanwhile, client)
        await client.run(schedules.of("measurement").offer, starts_ns=time.monotonic_ns())
        await pool.close()
    kept.requests.sort(key=lambda request: request.request_id)
    return Ran(kept.requests, kept.progress, kept.ages_ns, client, pool, server)


@contextlib.contextmanager
def serving(**behaviour: Any) -> Iterator[str]:
    """The URL of a fake server in a process of its own."""
    command = [sys.executable, "-m", "tests.load.fake_server", json.dumps(behaviour)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def start(folder: Path, url: str, plan: Plan, **setup: Any) -> LoadLink:
    """A load process that writes into `folder`."""
    asked = {"vocabulary": (10, 1_000)} | setup
    return LoadLink(
        LoadSetup(
            experiment_id="fake",
            folder=str(folder),
            plan=plan,
            process_index=0,
            base_url=url,
            model="fake",
            **asked,
        )
    )


def events_of(folder: Path) -> list[Event]:
    """Everything in the one segment of a folder."""
    (path,) = folder.glob("load-*.events.zst")
    with SegmentReader(path) as reader:
        found = [unpack(envelope) for block in reader.blocks() for envelope in reader.events(block)]
    assert not any(isinstance(event, UnknownEvent) for event in found)
    return [event for event in found if isinstance(event, Event)]
