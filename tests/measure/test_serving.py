"""A server is measured as a user measures it: started or found, asked at its rate, watched, ended; whatever goes wrong is one line."""

import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.process_tree import descendants, name_of_living
from llem.projections import open_readonly, rebuild, sample_pieces
from llem.projections.derive.held import Held
from llem.projections.derive.reading import read_experiments
from llem.projections.derive.stored import Stored
from llem.store import Store
from tests.conftest import (
    CALM,
    PATIENCE_S,
    Run,
    Start,
    bare_events,
    command_line,
    events_of,
    segments,
    wait_until,
)
from tests.delays import best_of_rounds, delays
from tests.forked import ForkedLlem
from tests.projections.test_reading import of_source
from tests.servers.programs import simulated

SERVED = ("--server", "simulated", "--meter", "simulated")
SHORT = (
    *("--set", "workload.min_duration_s=1.5", "--set", "workload.requests=8"),
    *("--set", "workload.output_tokens.mean=8", "--set", "windows.warmup_max_s=0.5"),
    *("--set", "windows.baseline_s=0.2", "--set", "windows.baseline_after_s=0.1"),
    # a busy machine is no fault of the client
    *CALM,
    *("--set", "validity.max_send_lag_ms=10000", "--set", "validity.max_client_lag_ms=10000"),
    *("--set", "validity.min_rate_held=0.1"),
)
KEY = "sk-" + "k" * 40


@pytest.fixture(scope="module")
def measured(forked: ForkedLlem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a server that was measured at a rate."""
    store = tmp_path_factory.mktemp("served") / "store"
    environment = {**os.environ, "LLEM_DIR": str(store), "NO_COLOR": "1"}
    done = forked.run(("measure", *SERVED, *SHORT, "--rate", "20"), environment=environment)
    assert done.returncode == 0, done.stderr
    return store


def _result(llem: Run, store: Path | None = None) -> dict[str, Any]:
    shown = llem("show", "--json", *([] if store is None else ["--store", store]))
    assert shown.returncode == 0, shown.stderr
    result: dict[str, Any] = msgspec.json.decode(shown.stdout)
    return result


def _codes(result: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in result["invalid_reasons"]}


def _at(store: Path, event: str, /, **about: object) -> int:
    """When the first such event of the worker was."""
    (worker,) = segments(store, "worker")
    return next(
        at_ns
        for name, _, at_ns, body in bare_events(worker)
        if name == event and all(body.get(key) == wanted for key, wanted in about.items())
    )


def test_a_server_is_measured_from_nothing_to_its_figures(llem: Run, measured: Path) -> None:
    """Each request is in the log and in the result, with what the server says of itself, and nothing of the server is left."""
    result = _result(llem, measured)
    assert _codes(result) == {"too_short"}
    (started,), (stopped,) = (
        events_of(measured, "worker", kind) for kind in ("server_started", "server_stopped")
    )
    assert started["managed"] is True and started["kind"] == started["model"] == "simulated"
    steps = [started[f"{step}_ns"] for step in ("started", "port_open", "healthy", "first_answer")]
    assert steps == sorted(steps)
    assert stopped["exit_status"] == 0 and name_of_living(started["pid"]) is None
    (account,) = [
        body for body in events_of(measured, "load", "load_completed") if body["window"] == "measurement"
    ]
    assert result["total_requests"] == account["requests"] >= 8
    assert (
        result["total_output_tokens"] + result["serving"]["drain_output_tokens"]
        == account["output_tokens"]
        == 8 * account["requests"]
    )
    assert result["latency_stats"]["ttft_median_ms"] >= 20
    assert (next(measured.glob("log/*/server.log")).stat().st_mode & 0o777) == 0o600


def test_screens_say_what_was_offered(llem: Run, measured: Path) -> None:
    """Without it nobody can tell one rate from another."""
    shown = llem("show", "--store", measured).stdout.splitlines()
    assert shown[0].endswith("  simulated, 20 requests/s, completed")
    watched = llem("watch", "--once", "--store", measured).stdout.splitlines()
    assert watched[2].startswith("of         simulated, 20 requests/s, meter simulated, on ")


def test_idle_power_is_measured_before_and_with_the_server(measured: Path) -> None:
    """The board before it starts, its weights loaded and nothing to do, and the board again once it has ended."""
    positions = [body["position"] for body in events_of(measured, "worker", "baseline_measured")]
    assert positions == ["before", "server_idle", "after"]
    order = [
        _at(measured, "baseline_measured", position="before"),
        _at(measured, "server_started"),
        _at(measured, "baseline_measured", position="server_idle"),
        _at(measured, "window_opened", kind="warmup"),
        _at(measured, "window_opened", kind="measurement"),
        _at(measured, "window_closed", kind="measurement"),
        _at(measured, "window_opened", kind="drain"),
        _at(measured, "window_closed", kind="drain"),
        _at(measured, "server_stopped"),
        _at(measured, "baseline_measured", position="after"),
    ]
    assert order == sorted(order)


def test_the_servers_own_counters_agree_with_what_came(llem: Run, measured: Path) -> None:
    """Read just before the measurement and just after its drain, so that their difference is what was asked."""
    opened_ns, closed_ns = (
        _at(measured, "window_opened", kind="measurement"),
        _at(measured, "window_closed", kind="drain"),
    )
    readings = sorted(
        (at_ns, dict(zip(event["names"], column, strict=True)))
        for event in events_of(measured, "worker", "server_metrics_read")
        for at_ns, column in zip(event["times_ns"], zip(*event["values"], strict=True), strict=True)
    )
    before = [values for at_ns, values in readings if at_ns <= opened_ns][-1]
    after = next(values for at_ns, values in readings if at_ns >= closed_ns)
    name = "simulated:generation_tokens_total"
    assert after[name] - before[name] == _result(llem, measured)["serving"]["streamed_output_tokens"]


@pytest.mark.slow
def test_every_rate_is_an_experiment_of_its_own_under_one_server(llem: Run, store: Path) -> None:
    """The first starts it, the others find it running and take the board's idle power with its age; the last ends it."""
    done = llem("measure", *SERVED, *SHORT, "--rate", "10,20,40", "--json")
    assert done.returncode == 0, done.stderr
    results = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert [result["labels"]["load.rate"] for result in results] == ["10", "20", "40"]
    assert done.stderr.splitlines()[-3:][0].split()[0] == "10.0"
    runs = [result["experiment_id"] for result in results]
    starts = _query(
        llem,
        store,
        "SELECT body ->> 'adopted_from' AS adopted_from, body ->> 'pid' AS pid FROM events WHERE type = 'server_started' ORDER BY experiment_id",
    )
    assert [start["adopted_from"] for start in starts] == [None, runs[0], runs[0]]
    assert len({start["pid"] for start in starts}) == 1
    ends = _query(llem, store, "SELECT experiment_id FROM events WHERE type = 'server_stopped'")
    assert [end["experiment_id"] for end in ends] == [runs[2]]
    reused = _query(
        llem,
        store,
        "SELECT body ->> 'reused_from' AS reused_from FROM events WHERE type = 'baseline_measured' AND body ->> 'position' = 'before' "
        "ORDER BY experiment_id",
    )
    assert [baseline["reused_from"] for baseline in reused] == [None, runs[0], runs[0]]
    rates = [result["serving"]["offered_rate_per_s"] for result in results]
    assert rates == sorted(rates)


@pytest.mark.slow
def test_the_last_try_of_a_search_ends_the_server(llem: Run, store: Path) -> None:
    """With its event, and the board's idle power after it; nothing holds a first token within a millisecond, so that five tries are made."""
    done = llem(
        "measure", *SERVED, *SHORT, "--find", "max-rate", "--rate", "64", "--slo", "ttft_ms=1", "--json"
    )
    assert done.returncode == 0, done.stderr
    runs = [msgspec.json.decode(line)["experiment_id"] for line in done.stdout.splitlines()]
    assert len(runs) == 5
    ends = _query(
        llem,
        store,
        "SELECT experiment_id FROM events WHERE type = 'server_stopped' OR type = 'baseline_measured' AND body ->> 'position' = 'after'",
    )
    assert [end["experiment_id"] for end in ends] == [runs[-1]] * 2


def _query(llem: Run, store: Path, sql: str) -> list[dict[str, Any]]:
    asked = llem("query", sql, "-f", "json", "--store", store)
    assert asked.returncode == 0, asked.stderr
    rows: list[dict[str, Any]] = msgspec.json.decode(asked.stdout)
    return rows


def test_a_servers_figures_stand_beside_the_others(llem: Run, measured: Path) -> None:
    """Idle power of the server, rates, and its counts beside ours."""
    (row,) = _query(llem, measured, "FROM experiment_results")
    assert row["server_idle_power_w"] == pytest.approx(100.0, rel=0.01)
    above_j = row["total_energy_j"] - row["server_idle_power_w"] * row["duration_sec"]
    assert row["energy_above_server_idle_j"] == pytest.approx(above_j, abs=1e-6)
    assert row["output_tokens"] + row["drain_output_tokens"] == row["usage_output_tokens"]
    assert row["usage_output_tokens"] == row["server_output_tokens"]
    assert row["usage_input_tokens"] == row["server_input_tokens"] >= row["input_tokens"]
    (sent,) = _query(
        llem,
        measured,
        "SELECT (count(*) - 1) * 1e9 / (max(start_ns) - min(arrival_ns)) AS per_s FROM requests WHERE window_kind = 'measurement'",
    )
    assert 0 < row["sent_rate_per_s"] == pytest.approx(sent["per_s"])
    assert row["sent_rate_per_s"] <= row["offered_rate_per_s"] and row["batch_size"] is None
    assert row["ttft_sent_mean_ms"] <= row["ttft_mean_ms"] and row["tpot_vllm_mean_ms"] > 0


def test_a_measurement_ends_when_its_load_does(llem: Run, measured: Path) -> None:
    """What is in flight then is answered in a drain of its own: its energy is no part of the measurement's, its requests and their latencies are told."""
    (row,) = _query(llem, measured, "FROM experiment_results")
    drain, window = _query(
        llem,
        measured,
        "SELECT kind, duration_sec, energy_j FROM windows WHERE kind IN ('drain', 'measurement') ORDER BY kind",
    )
    assert (drain["energy_j"], window["energy_j"]) == (row["drain_energy_j"], row["total_energy_j"])
    assert (drain["duration_sec"], window["duration_sec"]) == pytest.approx(
        (row["drain_sec"], row["duration_sec"]), abs=1e-5
    )
    (account,) = [
        body for body in events_of(measured, "load", "load_completed") if body["window"] == "measurement"
    ]
    planned_s = (account["offered_ns"] - account["starts_ns"]) / 1e9
    assert planned_s <= row["duration_sec"]
    assert 1 <= row["drain_requests"] < row["requests"] == account["requests"]
    (all_of_them,) = _query(
        llem, measured, "SELECT avg(e2e_ms) AS mean_ms FROM timed_requests WHERE window_kind = 'measurement'"
    )
    assert row["e2e_mean_ms"] == pytest.approx(all_of_them["mean_ms"])


def test_the_energy_of_requests_that_run_together_adds_up(llem: Run, measured: Path) -> None:
    """Each one's share and what was used while none was in flight are the energy of the measurement."""
    (row,) = _query(
        llem,
        measured,
        "SELECT count(*) AS requests, sum(energy_attributed_j) AS attributed_j, any_value(e.requests) AS all_requests, "
        "any_value(e.idle_energy_j) AS idle_j, any_value(e.total_energy_j) AS total_j "
        "FROM request_shares JOIN experiment_results e USING (experiment_id)",
    )
    assert row["requests"] == row["all_requests"]
    assert row["attributed_j"] + row["idle_j"] == pytest.approx(row["total_j"], rel=1e-9)
    assert _query(llem, measured, "FROM batches") == []


def test_the_energy_of_a_request_that_is_answered_in_the_drain_is_not_known(
    llem: Run, measured: Path
) -> None:
    """Its part of the measurement is, and says what it lacks."""
    (row,) = _query(
        llem,
        measured,
        "SELECT count(*) FILTER (a.energy_allocated_j IS NULL) AS unknown, count(*) FILTER (a.reason LIKE '%drain%') AS reasons, "
        "count(s.energy_attributed_j) AS parts, count(*) AS requests, any_value(e.drain_requests) AS drain_requests "
        "FROM request_energies a JOIN request_shares s USING (experiment_id, request_id) JOIN experiment_results e USING (experiment_id)",
    )
    assert row["unknown"] == row["reasons"] == row["drain_requests"] >= 1
    assert row["parts"] == row["requests"]


@pytest.mark.slow
def test_a_large_served_run_gives_what_a_small_one_gives(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures are the same whether its rows are held or asked from the tables piece by piece."""
    with monkeypatch.context() as patched:
        patched.setattr(sample_pieces, "SMALL_ROWS", 0)
        rebuild(Store(measured))
    with open_readonly(Store(measured)) as connection:
        (experiment_id,) = Store(measured).experiment_ids()
        ((facts, held),) = read_experiments(connection, [experiment_id])
        stored = Stored(connection, experiment_id)
        assert isinstance(held, Held)
        assert of_source(held, facts) == of_source(stored, facts)


def test_goodput_is_asked_for_any_objective_afterwards(llem: Run, measured: Path) -> None:
    """All requests meet one that is generous, none one that cannot be met."""
    (generous,) = _query(llem, measured, "FROM goodput(ttft_ms := 1e6, tpot_ms := 1e6, e2e_ms := 1e6)")
    assert generous["good_requests"] == generous["all_requests"] and generous["attainment"] == 1
    (row,) = _query(llem, measured, "FROM experiment_results")
    assert generous["goodput_per_s"] == pytest.approx(row["requests"] / row["duration_sec"])
    (none,) = _query(llem, measured, "FROM goodput(ttft_ms := 1)")
    assert none["good_requests"] == 0 and none["energy_per_good_request_j"] is None
    (unasked,) = _query(llem, measured, "FROM goodput()")
    assert unasked["attainment"] == 1


def test_requests_in_flight_are_asked_over_time(llem: Run, measured: Path) -> None:
    """From none to none, one more or one less at each step, and never more than the load process saw."""
    (row,) = _query(llem, measured, "FROM experiment_results")
    steps = _query(llem, measured, f"FROM in_flight('{row['experiment_id']}')")
    counts = [0, *(step["in_flight"] for step in steps)]
    assert counts[-1] == 0 and min(counts) == 0 and max(counts) <= row["max_in_flight"]
    assert {abs(after - before) for before, after in pairwise(counts)} == {1}
    assert len(steps) == 2 * row["requests"]


def test_what_a_server_says_of_itself_is_a_table(llem: Run, measured: Path) -> None:
    """A row for each metric and time."""
    rows = _query(
        llem, measured, "FROM server_metrics WHERE name = 'simulated:requests_total' ORDER BY at_ns"
    )
    values = [row["value"] for row in rows]
    assert len(values) >= 3 and values == sorted(values) and {row["labels"] for row in rows} == {None}


@pytest.mark.slow
def test_a_running_server_is_measured_and_left_running(llem: Run, store: Path, tmp_path: Path) -> None:
    """Its board-idle power cannot be known, that of the idle server is."""
    with simulated(tmp_path) as process:
        done = llem("measure", "--server", process.address.url, "--meter", "simulated", *SHORT)
        assert done.returncode == 0, done.stderr
        process.check()
        (started,) = events_of(store, "worker", "server_started")
    assert (started.get("managed", False), started["pid"]) == (False, process.pid)
    assert events_of(store, "worker", "server_stopped") == []
    assert [body["position"] for body in events_of(store, "worker", "baseline_measured")] == ["server_idle"]
    assert _codes(_result(llem)) == {"too_short"}


@pytest.mark.slow
def test_what_follows_the_dashes_is_the_servers(llem: Run, store: Path) -> None:
    """At the end of its own command line; a server that runs already has none."""
    assert llem("measure", *SERVED, *SHORT, "--", "--ignored", "7").returncode == 0
    (started,) = events_of(store, "worker", "server_started")
    assert started["argv"][-2:] == ["--ignored", "7"]
    refused = llem("measure", "--server", "http://127.0.0.1:1", "--", "--x")
    assert refused.returncode == 2 and "a server that runs already" in refused.stderr


@pytest.mark.slow
def test_a_server_of_ones_own_is_started_by_its_command(llem: Run, store: Path, tmp_path: Path) -> None:
    """With the port where the command wants it."""
    plan = tmp_path / "plan.toml"
    program = f'["{sys.executable}", "-m", "llem.servers.simulated_program", "{{host}}", "{{port}}", "{{}}"]'
    plan.write_text(f"server.command = {program}\n")
    done = llem("measure", plan, "--meter", "simulated", *SHORT)
    assert done.returncode == 0, done.stderr
    assert events_of(store, "worker", "server_started")[0]["kind"] == "command"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server", "ghost"), "'ghost', expected one of vllm"),
        (("--server", "http://127.0.0.1:1"), "nothing answers at http://127.0.0.1:1"),
        (("--server", "ftp://there"), "expected an address such as"),
        (("--server", "llamacpp", "--model", "/no/such.gguf"), "no such.gguf|not there|no llama-server"),
        (("--rate", "4"), "expected --server NAME or --server URL"),
        (("--server", "simulated", "--rate", "4,x"), "--rate: found '4,x', expected numbers"),
        (("--server", "simulated", "--rate", "4", "--concurrency", "2"), "found both, expected one of them"),
        (("--server", "simulated", "--rate", "-4"), "load.rate"),
        (("--server", "simulated", "--rate", "4,-8"), "load.rate"),
        (("--server", "simulated", "--rate", "4,8", "-o", "r.json"), "--output: found several loads"),
        (("--server", "simulated", "--workers", "2"), "devices.workers: found 2"),
        (("--server", "http://127.0.0.1:1", "--set", "server.api_key_env=NO_KEY"), "no variable NO_KEY"),
        (("--server", "simulated", "--set", "server.api_key_env=NO_KEY"), "no variable NO_KEY"),
        (("--server", "simulated", "--rate", "1e9"), "lower load.rate"),
        (("--server", "simulated", "--engine", "simulated"), "engine.name: found simulated"),
        (("--server", "simulated", "--set", "engine.batch_size=8"), "engine.batch_size: found 8"),
        (("--server", "simulated", "--weights", "random"), "model.weights: found random"),
        (("--server", "localhost:8000"), "http://localhost:8000"),
        (("--server", "transformers", "--model", "./no/folder"), "which is not there|no package"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    llem: Run, store: Path, arguments: tuple[str, ...], said: str
) -> None:
    """With status 2 and one line."""
    done = llem("measure", *arguments, "--meter", "simulated")
    assert done.returncode == 2
    assert any(part in done.stderr for part in said.split("|"))
    assert len(done.stderr.splitlines()) == 1 and not segments(store)


def test_a_port_that_is_taken_is_told(llem: Run, tmp_path: Path) -> None:
    """Before the baseline."""
    with simulated(tmp_path) as process:
        done = llem("measure", *SERVED, "--set", f"server.port={process.address.port}")
    assert done.returncode == 2 and f"port {process.address.port} of server.port" in done.stderr


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(llem: Run, store: Path, tmp_path: Path) -> None:
    """With its own last line, and status 2, because nothing was measured."""
    plan = tmp_path / "plan.toml"
    plan.write_text('server.command = ["sh", "-c", "echo cannot load the weights >&2; exit 3", "{port}"]\n')
    done = llem("measure", plan, "--meter", "simulated", *SHORT)
    assert done.returncode == 2
    assert "found exit status 3" in done.stderr and "its last line: cannot load the weights" in done.stderr
    assert "failed while waiting for the server" in done.stderr
    assert events_of(store, "worker", "server_stopped")[0]["last_lines"] == ["cannot load the weights"]


@pytest.mark.slow
@best_of_rounds
def test_a_server_that_is_never_ready_is_given_up(llem: Run, store: Path) -> None:
    """When the plan's time is over, and it is ended."""
    load = ("--set", "server.simulated.load_ms=60000", "--set", "server.ready_timeout_s=2")
    done = llem("measure", *SERVED, *SHORT, *load)
    assert done.returncode == 2 and "is not ready" in done.stderr
    with delays():  # it answers within two seconds of its start
        assert "status 503" in done.stderr
    assert events_of(store, "worker", "server_stopped")


@pytest.mark.slow
def test_a_server_that_dies_while_it_is_measured_is_told(llem: Run, store: Path) -> None:
    """What came until then is kept, and the status is 1."""
    done = llem(
        "measure", *SERVED, *SHORT, "--set", "workload.min_duration_s=60",
        "--set", "server.simulated.crash_after_requests=120", "--rate", "25",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "failed while measuring: the server ended: found exit status 3" in done.stderr
    assert "crashed as server.simulated.crash_after_requests asks" in done.stderr
    result = _result(llem)
    assert result["total_requests"] > 0 and "incomplete" in _codes(result)


@pytest.mark.slow
def test_requests_that_fail_are_told_and_counted(llem: Run) -> None:
    """Each with the server's own words; more than a few make the result invalid."""
    failing = ",".join(map(str, range(12, 200, 3)))
    done = llem("measure", *SERVED, *SHORT, "--set", f"server.simulated.fail_requests=[{failing}]")
    assert "HTTP 500: failed as server.simulated.fail_requests asks" in done.stdout
    result = _result(llem)
    assert result["failed_requests"] > 0 and "failed_requests" in _codes(result)


@pytest.mark.slow
def test_a_server_that_fails_its_whole_warm_up_says_why(llem: Run) -> None:
    """With its answer, now and whenever the run is looked at."""
    failing = ",".join(map(str, range(2, 400)))
    load = ("--rate", "20", "--set", f"server.simulated.fail_requests=[{failing}]")
    done = llem("measure", *SERVED, *SHORT, *load)
    why = "the last with HTTP 500: failed as server.simulated.fail_requests asks"
    assert (
        done.returncode == 1 and "every request of the warm-up failed" in done.stderr and why in done.stderr
    )
    shown = llem("show")
    assert (
        shown.returncode == 2
        and "status failed: warming up: every request" in shown.stderr
        and why in shown.stderr
    )


@pytest.mark.slow
def test_a_server_that_lies_about_its_tokens_is_told(llem: Run) -> None:
    """Nobody but it counts its tokens, so its counters show it: both counts stand in the reason."""
    done = llem("measure", *SERVED, *SHORT, "--set", "server.simulated.overstates=0.25")
    assert done.returncode == 0, done.stderr
    (reason,) = [each for each in _result(llem)["invalid_reasons"] if each["code"] == "counts_disagree"]
    assert reason["value"] == pytest.approx(0.2)
    assert "by its usage" in reason["text"] and "by its counters" in reason["text"]


@pytest.mark.slow
def test_a_key_is_sent_and_never_shown(llem: Run, store: Path, tmp_path: Path) -> None:
    """It stands in no file of the store and on no screen."""
    with simulated(tmp_path) as process:
        named = ("--set", "server.api_key_env=MY_KEY")
        done = llem(
            "measure", "--server", process.address.url, "--meter", "simulated", *SHORT, *named, MY_KEY=KEY
        )
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    for path in store.rglob("*"):
        if path.suffix == ".zst":
            assert KEY not in repr(bare_events(path))


def _is_measuring(store: Path) -> bool:
    return any(
        name == "window_opened" and body["kind"] == "measurement"
        for path in segments(store, "worker")
        for name, _, _, body in bare_events(path)
    )


def _server_pid(store: Path) -> int:
    (worker,) = segments(store, "worker")
    return next(body["pid"] for name, _, _, body in bare_events(worker) if name == "server_started")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_its_measurement(start_llem: Start, store: Path, number: signal.Signals) -> None:
    """Asked to, by a person or a scheduler; what was measured is kept."""
    process = start_llem("measure", *SERVED, *SHORT, "--set", "workload.min_duration_s=300")
    wait_until(lambda: _is_measuring(store))
    pid = _server_pid(store)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 130 and name_of_living(pid) is None
    assert events_of(store, "worker", "server_stopped")


@pytest.mark.slow
def test_a_run_that_a_signal_cuts_has_that_against_it_and_no_quarrel_with_the_server(
    start_llem: Start, llem: Run, store: Path
) -> None:
    """In the middle of requests of which the server's counters have tokens already; their rate was held as far as there was one."""
    long = ("workload.min_duration_s=300", "workload.output_tokens.mean=200", "server.simulated.token_ms=20")
    process = start_llem(
        "measure", *SERVED, *SHORT, "--concurrency", "8", *(word for key in long for word in ("--set", key))
    )
    wait_until(lambda: _is_measuring(store))
    # the first round is answered after four seconds, the second is cut off
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    process.communicate()
    result = _result(llem)
    assert result["serving"]["server_output_tokens"] > result["serving"]["streamed_output_tokens"] > 0
    assert _codes(result) == {"incomplete", "too_short"}


@pytest.mark.slow
@pytest.mark.parametrize("who", ["llem", "worker", "server", "load"])
def test_no_process_is_left_when_one_is_killed(start_llem: Start, store: Path, who: str) -> None:
    """Whichever it is; the log of what was measured can be read."""
    process = start_llem("measure", *SERVED, *SHORT, "--set", "workload.min_duration_s=300")
    wait_until(lambda: _is_measuring(store))
    server = _server_pid(store)
    family = descendants(process.pid)
    os.kill({"llem": process.pid, "server": server}.get(who) or _pid_of(who, family), signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    wait_until(lambda: not any(name_of_living(pid) for pid in family))
    assert process.returncode == (-signal.SIGKILL if who == "llem" else 1)


def _pid_of(who: str, family: set[int]) -> int:
    module = {"worker": "llem.measure.serving", "load": "llem.measure.load_process"}[who]
    return next(pid for pid in family if module in command_line(pid))
