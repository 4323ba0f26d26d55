"""The load process: told what to offer, it writes what came of it, and it ends however its worker ends."""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llem.load.schedule import arrivals_ns, schedule_sha256
from llem.measure.load_link import LoadFailedError, LoadLink
from llem.measure.messages import LoadDone, LoadOffered, LoadProgress, LoadStarted
from llem_events import SegmentReader, Verdict
from llem_events.events import LoadCompleted, LoadPlanned, Request, RequestProgressed, RequestsCompleted
from tests.conftest import LIMIT_S
from tests.delays import best_of_rounds, delays, lateness
from tests.load.runs import events_of, load_plan, serving, start
from tests.load.test_schedule import gaps, ks_p_value

KEY = "sesame-open-0123"  # of no known shape, so that nothing but care keeps it out of the log
FORBIDDEN = (
    "torch",
    "transformers",
    "duckdb",
    "typer",
    "rich",
    "click",
    "aiohttp",
    "httpx",
    "requests",
    "urllib3",
    "numpy",
)


def until_done(link: LoadLink) -> LoadCompleted:
    """The account of the window that runs."""
    while not isinstance(news := link.receive(timeout_s=LIMIT_S), LoadDone):
        assert news is not None
    return news.account


def requests_of(folder: Path) -> list[Request]:
    """Every request of a load process's segment, by its id."""
    events = [event for event in events_of(folder) if isinstance(event, RequestsCompleted)]
    return sorted((r for event in events for r in event.requests), key=lambda request: request.request_id)


def test_a_window_is_planned_offered_and_accounted_for(tmp_path: Path) -> None:
    """The plan stands in the log before the first request is due, then all requests, then the account that the worker hears, too."""
    plan = load_plan({"rate": 200}, requests=40, tokens=3)
    with serving(ttft_ms=5) as url:
        link = start(tmp_path, url, plan)
        assert link.ready.prompts == 40
        link.start("measurement")
        started = link.receive(timeout_s=LIMIT_S)
        news = [started]
        while not isinstance(news[-1], LoadDone):
            news.append(link.receive(timeout_s=LIMIT_S))
        link.close()
    planned, *between, account = events_of(tmp_path)
    drawn = arrivals_ns("poisson", rate_per_s=200, seed=42, requests=40, min_duration_s=0)
    assert isinstance(planned, LoadPlanned)
    assert planned.schedule_sha256 == schedule_sha256(drawn)
    assert (planned.kind, planned.rate_per_s, planned.seed, planned.requests) == ("open", 200, 42, 40)
    assert isinstance(started, LoadStarted)
    assert planned.starts_ns == started.at_ns
    assert [request.arrival_ns - planned.starts_ns for request in requests_of(tmp_path)] == list(drawn)
    assert all(isinstance(event, RequestsCompleted) for event in between)
    done, offered = news[-1], [message for message in news if isinstance(message, LoadOffered)]
    assert isinstance(done, LoadDone)
    assert done.account == account
    assert [message.at_ns for message in offered] == [done.account.offered_ns]
    assert (done.account.requests, done.account.output_tokens, done.account.failed_requests) == (40, 120, 0)


def test_a_warm_up_goes_on_until_it_is_ended_and_asks_other_prompts(tmp_path: Path) -> None:
    """Then the measurement follows in the same process and segment; neither its ids nor its prompts are those of the warm-up."""
    plan = load_plan({"concurrency": 2}, requests=6, tokens=2, record_text=True)
    with serving(ttft_ms=5) as url:
        link = start(tmp_path, url, plan, vocabulary=None)
        link.start("warmup")
        while not (isinstance(news := link.receive(timeout_s=LIMIT_S), LoadProgress) and news.requests >= 8):
            assert news is not None
        link.end(drain=True)
        warmup = until_done(link)
        link.start("measurement")
        measured = until_done(link)
        link.close()
    events = [event for event in events_of(tmp_path) if isinstance(event, RequestsCompleted)]
    texts = {
        window: {request.prompt for event in events if event.window == window for request in event.requests}
        for window in ("warmup", "measurement")
    }
    assert (warmup.window, measured.window, measured.requests) == ("warmup", "measurement", 6)
    assert warmup.requests >= 8
    assert len(texts["measurement"]) == 6
    assert not texts["warmup"] & texts["measurement"]


def test_the_key_is_sent_and_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the variable that is named; command line, log and errors do not know it, even where the server says it."""
    monkeypatch.setenv("LLEM_TEST_KEY", KEY)
    with serving(wants_key=KEY) as url:
        link = start(tmp_path, url, load_plan({"concurrency": 1}, requests=2), api_key_env="LLEM_TEST_KEY")
        command_line = Path(f"/proc/{link.pid}/cmdline").read_bytes()
        link.start("measurement")
        assert until_done(link).failed_requests == 0
        link.close()
    assert KEY.encode() not in command_line
    (segment,) = tmp_path.iterdir()
    shown = subprocess.run(["zstdcat", segment], capture_output=True, check=False).stdout
    assert KEY.encode() not in segment.read_bytes() + shown


@pytest.mark.parametrize(
    ("setup", "load", "said"),
    [
        ({"api_key_env": "LLEM_NO_SUCH_KEY"}, {}, "environment variable LLEM_NO_SUCH_KEY: found none"),
        ({}, {"trace": "/no/such/trace"}, "trace /no/such/trace cannot be read"),
        ({"base_url": "localhost"}, {}, "the server's URL: found 'localhost'"),
    ],
)
def test_what_the_plan_asks_and_cannot_be_had_is_told_before_anything_is_sent(
    tmp_path: Path, setup: dict[str, str], load: dict[str, str], said: str
) -> None:
    """In one line, with status 2."""
    setup = dict(setup)
    url = setup.pop("base_url", "http://127.0.0.1:9")
    with pytest.raises(LoadFailedError) as failed:
        start(tmp_path, url, load_plan(load), **setup)
    assert said in str(failed.value)
    assert failed.value.exit_status == 2


def test_the_process_is_small() -> None:
    """It loads no model runtime, no database, no command line, no HTTP framework and not even numpy."""
    program = "import sys, llem.measure.load_process; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not {name.partition(".")[0] for name in loaded} & set(FORBIDDEN)


def test_the_process_takes_little_memory(tmp_path: Path) -> None:
    """At most 60 MB with 64 streams; the benchmark writes down how much with 1,000."""
    with serving() as url:
        link = start(tmp_path, url, load_plan({"concurrency": 64}, requests=200, tokens=64))
        link.start("measurement")
        peak_bytes = until_done(link).peak_memory_bytes
        link.close()
    assert peak_bytes is not None
    assert peak_bytes < 60e6


@pytest.mark.slow
@best_of_rounds
def test_a_killed_load_process_is_noticed_and_leaves_its_log(tmp_path: Path) -> None:
    """At most a second of what long requests brought is lost, and the segment reads as unclosed."""
    with serving(ttft_ms=10, chunk_ms=10) as url:
        link = start(tmp_path, url, load_plan({"concurrency": 2}, requests=2, tokens=1_000))
        link.start("measurement")
        ends_s = time.monotonic() + 2.5
        while time.monotonic() < ends_s:
            link.receive(timeout_s=0.1)
        os.kill(link.pid, signal.SIGKILL)
        killed_ns = time.monotonic_ns()
        with pytest.raises(LoadFailedError, match="the load process ended: killed by SIGKILL"):
            while True:
                link.receive(timeout_s=LIMIT_S)
        link.close()
    (segment,) = tmp_path.glob("load-*.events.zst")
    with SegmentReader(segment) as reader:
        list(reader.blocks())
        assert reader.verdict in (Verdict.UNCLOSED, Verdict.TORN)
    told = [event for event in events_of(tmp_path) if isinstance(event, RequestProgressed)]
    assert {event.request_id for event in told} == {0, 1}
    with delays():
        assert killed_ns - max(at_ns for event in told for at_ns in event.chunk_times_ns) < 1e9


def test_a_load_process_whose_worker_is_gone_stops_and_seals(tmp_path: Path) -> None:
    """Requests in flight are stopped, and nobody is left."""
    with serving(ttft_ms=10, chunk_ms=10) as url:
        link = start(tmp_path, url, load_plan({"concurrency": 2}, requests=2, tokens=1_000))
        link.start("measurement")
        while not (isinstance(news := link.receive(timeout_s=LIMIT_S), LoadProgress) and news.chunks > 10):
            assert news is not None
        link._child.channel.close()
        assert link._child.process.wait(LIMIT_S) == 0
        link._child.stderr.close()
    assert [request.finish_reason for request in requests_of(tmp_path)] == ["stopped", "stopped"]
    (segment,) = tmp_path.glob("load-*.events.zst")
    with SegmentReader(segment) as reader:
        list(reader.blocks())
        assert reader.verdict is Verdict.CLEAN


@pytest.mark.slow
def test_a_process_that_cannot_keep_up_says_so(tmp_path: Path) -> None:
    """Held still for 0.4 s, it accounts for requests that it turned to late, and for an event loop that came late."""
    with serving() as url:
        link = start(tmp_path, url, load_plan({"rate": 200, "arrival": "constant"}, requests=800, tokens=1))
        link.start("measurement")
        assert isinstance(link.receive(timeout_s=LIMIT_S), LoadStarted)
        time.sleep(0.2)
        os.kill(link.pid, signal.SIGSTOP)
        time.sleep(0.4)
        os.kill(link.pid, signal.SIGCONT)
        account = until_done(link)
        link.close()
    assert (account.send_lag_max_ns or 0) > 300e6
    assert (account.send_lag_p99_ns or 0) > 200e6
    assert (account.loop_lag_max_ns or 0) > 300e6
    assert account.requests == 800


@pytest.mark.slow
@best_of_rounds
def test_an_open_loop_holds_its_rate(tmp_path: Path) -> None:
    """200 requests/s for 5 s: a Poisson process by its gaps, each request turned to within milliseconds of when it is due, or of when anybody is woken."""
    plan = load_plan({"rate": 200}, requests=1, tokens=1, min_duration_s=5)
    with serving(ttft_ms=20) as url, lateness() as late_ns:
        link = start(tmp_path, url, plan)
        link.start("measurement")
        account = until_done(link)
        link.close()
    requests = requests_of(tmp_path)
    drawn = arrivals_ns("poisson", rate_per_s=200, seed=42, requests=1, min_duration_s=5)
    sent = [request.start_ns for request in requests]
    assert account.failed_requests == 0
    assert len(sent) == len(drawn)
    with delays():
        assert (sent[-1] - sent[0]) / (drawn[-1] - drawn[0]) == pytest.approx(1, abs=0.02)
    assert ks_p_value(gaps([request.arrival_ns for request in requests]), 200.0) > 0.05
    with delays():
        assert (account.send_lag_p50_ns or 0) < 5e6 + 2 * statistics.median(late_ns)
