"""llem export --what timeline: what Perfetto and Chrome open is valid, nests, and says what the tables say."""

import json
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pytest

from llem import open_store
from llem.errors import ExportError
from llem.export.tracks import Numbers, Slice
from llem.results.throttling import SW_POWER
from llem.store import Store
from llem_events.events import RequestsCompleted, WarningRaised
from tests.conftest import Run
from tests.export.trace_format import TraceEvent, counters, names, slices, valid_events
from tests.world import at, experiment, request, sampler_events, supervisor, worker_events, write

IDLE = 1


def _reasons(index: int, second: float) -> int:
    return SW_POWER if not index and 15 < second < 20 else IDLE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two GPUs, of which the first is throttled for five seconds, with a warning half a second before the measurement."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    supervisor(store, processes=2)
    for index in range(2):
        said = worker_events(index, uuid=f"GPU-{index}")
        warned = (9.5, WarningRaised(code="doubtful", text="it is doubtful"))
        write(store, [*said[:8], warned, *said[8:]] if index else said, role="worker", index=index)
        sampled = sampler_events(
            index, uuid=f"GPU-{index}", throttle=lambda second, index=index: _reasons(index, second)
        )
        write(store, sampled, role="sampler", index=index)
    return store.path


def timeline(llem: Run, folder: Path, tmp_path: Path, *arguments: object) -> tuple[list[TraceEvent], str]:
    """The events of a valid timeline, and what was said."""
    path = tmp_path / "run.json"
    done = llem("export", path, "--what", "timeline", "--store", folder, *arguments)
    assert done.returncode == 0, done.stderr
    return valid_events(path), done.stderr


def _rows(llem: Run, folder: Path, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(llem("query", sql, "-f", "json", "--store", folder).stdout)
    return rows


@pytest.fixture
def events(llem: Run, folder: Path, tmp_path: Path) -> list[TraceEvent]:
    """Of the run."""
    return timeline(llem, folder, tmp_path)[0]


def _devices(events: list[TraceEvent]) -> list[int]:
    """Their numbers, in the order of their ids."""
    return sorted(pid for pid, name in names(events, "process_name").items() if name.startswith("gpu "))


def test_a_counter_has_at_every_sample_its_value(events: list[TraceEvent], llem: Run, folder: Path) -> None:
    """It keeps its value until its next event; times are from the start of the run."""
    rows = _rows(llem, folder, "SELECT device_uuid, at_ns, power_w FROM samples ORDER BY ALL")
    for index, pid in enumerate(_devices(events)):
        power = counters(events, pid, "power")
        times = [at_us for at_us, _ in power]
        sampled = [row for row in rows if row["device_uuid"] == f"GPU-{index}"]
        assert len(sampled) == 345
        for row in sampled:
            place = bisect_right(times, (row["at_ns"] - at(0)) // 1000) - 1
            assert power[place][1] == row["power_w"]


def test_windows_and_batches_are_slices_with_their_energy(
    events: list[TraceEvent], llem: Run, folder: Path
) -> None:
    """Every worker has its own, and a batch consists of prefill and decode."""
    (window, _) = slices(events, "measurement")
    assert (window["ts"], window["dur"]) == (10_000_000, 20_000_000)
    stored = _rows(llem, folder, "SELECT energy_j FROM batches ORDER BY process_index, batch_index")
    batches = slices(events, "batch ")
    assert [batch["args"].get("energy_j") for batch in batches] == [row["energy_j"] for row in stored]
    assert len(slices(events, "request ")) == 22
    # the warm-up's are no batches of the tables
    assert len(slices(events, "prefill")) == len(slices(events, "decode")) == 20 + 22


def test_throttling_and_warnings_are_instants(events: list[TraceEvent]) -> None:
    """When a device was slowed down, until when, and when a warning was raised; idle clocks are no throttling."""
    told = [(event["name"], event["ts"]) for event in events if event["ph"] == "i"]
    assert ("doubtful", 9_500_000) in told
    device = _devices(events)[0]
    assert [
        (event["name"], event["ts"]) for event in events if event["ph"] == "i" and event["pid"] == device
    ] == [("software power cap", 15_050_000), ("throttling ended", 20_050_000)]


def test_tokens_per_second_add_up_to_the_tokens(events: list[TraceEvent]) -> None:
    """Over each worker's time; between two requests the counter is 0."""
    workers = [pid for pid, name in names(events, "process_name").items() if name.startswith("worker")]
    assert len(workers) == 2
    for pid in workers:
        rates = counters(events, pid, "tokens")
        ends = [at_us for at_us, _ in rates[1:]]
        tokens = sum(rate * (end - begin) / 1e6 for (begin, rate), end in zip(rates[:-1], ends, strict=True))
        assert tokens == pytest.approx(4 * 11)
        assert rates[-1][1] == 0


def test_means_are_written_in_steps_of_the_resolution(llem: Run, folder: Path, tmp_path: Path) -> None:
    """A counter has one value for each step, and the screen says so."""
    events, said = timeline(llem, folder, tmp_path, "--resolution", 5)
    assert "counters are means over 5 s" in said
    power = counters(events, _devices(events)[0], "power")
    assert [at_us for at_us, _ in power] == [second * 1_000_000 for second in (0, 5, 10, 15, 20, 25, 30)]
    assert power[2][1] == pytest.approx(125.0)


def test_tokens_that_nobody_counted_have_no_counter(llem: Run, store: Path, tmp_path: Path) -> None:
    """Of a worker of which one chunk's tokens are not known nothing is said, rather than too little."""
    asked = [request(0, 12.0)]
    uncounted = request(1, 12.1, token_times_ns=[], chunk_times_ns=[at(12.3)], chunk_tokens=[None])
    told = (13.0, RequestsCompleted(window="measurement", requests=[*asked, uncounted]))
    experiment(Store(store).create(), worker=worker_events(batches=[told]))
    events, _ = timeline(llem, store, tmp_path)
    assert not [event for event in events if event["name"] == "tokens"]
    threads = {name for name in names(events, "thread_name", "tid").values() if name.startswith("slot")}
    assert threads == {"slot 1", "slot 2"}


def test_slices_that_overlap_have_threads_of_their_own() -> None:
    """What fits into an open slice may nest where that is meant, and nowhere else."""
    process, _ = Numbers().process("worker")
    overlapping = [Slice("a", 0, 10), Slice("b", 2, 5), Slice("c", 5, 12)]
    for nests, expected in ((True, [0, 0, 1]), (False, [0, 1, 1])):
        lanes = process.lanes("slot", nests=nests)
        written = [event for piece in overlapping for event in lanes.events(piece)]
        threads = [event["tid"] for event in written if event["ph"] == "M"]
        assert [threads.index(event["tid"]) for event in written if event["ph"] == "X"] == expected


@pytest.mark.parametrize(
    ("out", "arguments", "said"),
    [
        ("run.csv", ["--what", "timeline"], "a timeline is JSON"),
        ("run.json", ["--what", "timeline", "--window", "0:1"], "a timeline is of whole runs"),
        ("run.json", ["--what", "samples", "--resolution", "1"], "expected --what timeline"),
        ("run.json", ["--what", "timeline", "--resolution", "1e-9"], "expected 0, or 1e-06 to 1e+06 s"),
    ],
)
def test_what_cannot_be_asked_of_a_timeline(
    out: str, arguments: list[str], said: str, llem: Run, folder: Path, tmp_path: Path
) -> None:
    """It is refused before anything is written."""
    done = llem("export", tmp_path / out, *arguments, "--store", folder)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / out).exists()


def test_python_writes_the_same_timeline(llem: Run, folder: Path, tmp_path: Path) -> None:
    """As the command does; as a table it is refused."""
    timeline(llem, folder, tmp_path)
    store = open_store(folder)
    written = store.export(tmp_path / "python.json", what="timeline")
    assert written.read_bytes() == (tmp_path / "run.json").read_bytes()
    with pytest.raises(ExportError, match="a timeline is JSON"):
        store.export(tmp_path / "run.csv", what="timeline")


@pytest.mark.slow
def test_runs_of_which_something_is_missing_have_what_there_is(
    llem: Run, store: Path, tmp_path: Path
) -> None:
    """One whose worker was killed, one of which a sampler alone wrote, one without a power sensor, on several hosts."""
    made, ids = Store(store).create(), [f"2026010{day}-000000-aaaaaaaaaaaa" for day in range(1, 5)]
    write(made, worker_events()[:-3], role="worker", index=0, experiment_id=ids[0], seal=False)
    write(made, sampler_events(), role="sampler", index=0, experiment_id=ids[1], seal=False)
    blind = sampler_events(power_w=None, temperature_c=None, throttle=None)
    experiment(made, experiment_id=ids[2], sampler=blind)
    supervisor(made, processes=2, experiment_id=ids[3])
    for index, host in enumerate(("node-a", "node-b")):
        same: dict[str, Any] = {"index": index, "experiment_id": ids[3], "host": host}
        write(made, worker_events(index, host=host), role="worker", **same)
        write(made, sampler_events(index, host=host), role="sampler", **same)
    events, said = timeline(llem, store, tmp_path)
    assert said.count("every sample is written") == 1
    killed, alone, unread, spread = (_of_run(events, run, ids) for run in ids)
    (window,) = slices(killed, "measurement")
    assert window["args"]["closed"] is False and not [
        event for event in killed if event["ph"] == "C" and event["name"] == "power"
    ]
    assert [event for event in alone if event["name"] == "power"] and not slices(alone, "")
    assert not [event for event in unread if event["name"] in ("power", "temperature")] and slices(
        unread, "batch "
    )
    assert {name for name in names(spread, "process_name").values() if name.startswith("worker")} == {
        "worker 0 on node-a",
        "worker 1 on node-b",
    }


def _of_run(events: list[TraceEvent], run: str, runs: list[str]) -> list[TraceEvent]:
    """Groups are numbered run by run."""
    starts = {name.removeprefix("run "): pid for pid, name in names(events, "process_name").items()}
    ends = [*(starts[each] for each in runs[1:]), 10**9]
    return [event for event in events if starts[run] <= event["pid"] < ends[runs.index(run)]]
