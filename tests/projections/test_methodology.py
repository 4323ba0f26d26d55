"""Figures of a window chosen after the fact, by Python and by SQL."""

import math
import re
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.errors import DamagedLogError, QueryError, StoreError
from llem.plan import Plan, ValidityPlan
from llem.projections import catch_up, database, lineage, open_readonly, results_for
from llem.results import ExperimentResult
from llem.store import Store
from llem_events import SegmentReader
from tests.projections.tables import one, result, rows
from tests.world import (
    EXPERIMENT,
    experiment,
    request,
    sampler_events,
    supervisor,
    worker_events,
    write,
)


def windowed(log: Store, start_s: float, end_s: float) -> ExperimentResult:
    """The result of a part of the measurement."""
    with open_readonly(log) as connection:
        return results_for(connection, EXPERIMENT, methodology="windowed", window_s=(start_s, end_s))


def test_the_stored_result_comes_back_whole(pair: Store) -> None:
    """Columns and JSON are the same figures."""
    with open_readonly(pair) as connection:
        whole = results_for(connection, EXPERIMENT)
    row = result(pair)
    assert msgspec.json.decode(row["result"], type=ExperimentResult) == whole
    assert row["labels"] == whole.labels == {"series": "a"}
    for name in (
        "total_energy_j",
        "total_tokens",
        "total_flops",
        "tokens_per_second",
        "valid",
        "duration_sec",
    ):
        assert row[name] == getattr(whole, name), name
    assert row["ttft_p99_ms"] == whole.latency_stats.ttft_p99_ms
    assert len(whole.process_results) == 2


def test_a_window_recomputes_energy_tokens_and_latencies(usual: Store) -> None:
    """From 5 s to 15 s the ramp goes from 150 to 250 W; five requests lie in it."""
    found = windowed(usual, 5, 15)
    assert found.total_energy_j == pytest.approx(2_000.0, rel=1e-9)
    assert found.energy_source == "integrated"  # without counter samples, an edge in between has no reading
    assert (found.total_tokens, found.total_requests) == (60, 5)
    assert found.tokens_per_second == 6.0
    assert found.latency_stats.e2e_samples == 5
    assert found.energy_adjusted_j == pytest.approx(1_500.0)
    assert (found.measurement_methodology, found.steady_state_window) == ("windowed", (5.0, 15.0))


def test_a_request_that_crosses_an_edge_counts_by_its_tokens(usual: Store) -> None:
    """From 6.12 s: the prompt and the first token of the request at 6 s lie before; three tokens after."""
    found = windowed(usual, 6.12, 7.9)
    assert (found.total_input_tokens, found.total_output_tokens) == (0, 3)
    assert found.total_flops == 6_000 + 2_880
    assert found.latency_stats is None or found.latency_stats.e2e_samples == 0


def test_windows_add_up(pair: Store) -> None:
    """Two halves have the energy, tokens and FLOPs of the whole."""
    halves = windowed(pair, 0, 6.17), windowed(pair, 6.17, 20)
    whole = windowed(pair, 0, 20)
    for name in ("total_energy_j", "total_tokens", "total_flops"):
        assert sum(getattr(half, name) for half in halves) == pytest.approx(getattr(whole, name)), name


@pytest.mark.usefixtures("tables")
def test_a_window_with_a_sampled_counter_uses_it(log: Store) -> None:
    """100 J a second for ten seconds."""
    experiment(log, sampler=sampler_events(counter_j=lambda second: 100 * second))
    catch_up(log)
    found = windowed(log, 5, 15)
    assert found.total_energy_j == pytest.approx(1_000.0)
    assert found.energy_source == "counter"


@pytest.mark.usefixtures("tables")
def test_the_steady_state_is_found_in_the_log(log: Store) -> None:
    """Constant power and one request every two seconds, all the time; the plan asks for 10 s."""
    experiment(
        log,
        plan=Plan(validity=ValidityPlan(steady_state_min_s=10)),
        worker=worker_events(counter_j=(0.0, 4_000.0)),
        sampler=sampler_events(power_w=lambda _: 200.0),
    )
    catch_up(log)
    row = result(log)
    start_s, end_s = row["steady_state_from_sec"], row["steady_state_to_sec"]
    assert (start_s, end_s) == (0.0, 20.0)
    with open_readonly(log) as connection:
        steady = results_for(connection, EXPERIMENT, methodology="steady_state")
    assert steady.total_energy_j == pytest.approx(4_000.0)
    assert steady.total_tokens == 120


def test_what_cannot_be_recomputed_is_said(usual: Store) -> None:
    """No steady state, a window beyond the measurement, a window without a methodology, no such experiment."""
    with open_readonly(usual) as connection:
        with pytest.raises(QueryError, match=r"measured for 20.0 s, less than 30.0 s"):
            results_for(connection, EXPERIMENT, methodology="steady_state")
        with pytest.raises(QueryError, match=r"expected a part of 0 to 20.0 s"):
            results_for(connection, EXPERIMENT, methodology="windowed", window_s=(20, 30))
        with pytest.raises(QueryError, match="a window goes with"):
            results_for(connection, EXPERIMENT, window_s=(1, 2))
        with pytest.raises(QueryError, match="no experiment run-9"):
            results_for(connection, "run-9")


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (None, QueryError, "no experiment run-1; `llem runs` lists them"),
        ("damaged", DamagedLogError, "experiment run-1 has no result: found damaged: why; `llem log verify`"),
        ("newer", StoreError, "experiment run-1 has no result: found why; upgrade llem"),
        ("running", QueryError, "experiment run-1 has no result: found status running"),
        ("interrupted", QueryError, "experiment run-1 has no result: found status interrupted"),
    ],
)
@pytest.mark.parametrize("window_s", [None, (1.0, 2.0)])
def test_an_experiment_without_a_result_says_why(
    status: str | None, kind: type[Exception], told: str, window_s: tuple[float, float] | None
) -> None:
    """By the kind of its error too."""
    with database.in_memory() as connection:
        for table in ("experiments", "experiment_results"):
            columns = "experiment_id VARCHAR, status VARCHAR, problem VARCHAR, result JSON"
            connection.execute(f"CREATE TABLE {table} ({columns})")
            if status is not None:
                connection.execute(f"INSERT INTO {table} VALUES ('run-1', ?, 'why', NULL)", [status])
        if window_s is not None:
            connection.execute(database.LOG_SQL)
        with pytest.raises(kind, match=re.escape(told)) as raised:
            results_for(
                connection, "run-1", methodology="windowed" if window_s else "total", window_s=window_s
            )
    assert type(raised.value) is kind


@pytest.mark.parametrize("window_s", [(0.0, math.inf), (math.nan, 1.0), (0.0, 1e300)])
def test_a_window_has_an_end(window_s: tuple[float, float]) -> None:
    """In nanoseconds too."""
    with (
        database.in_memory() as connection,
        pytest.raises(QueryError, match="expected seconds that have an end"),
    ):
        results_for(connection, "run-1", methodology="windowed", window_s=window_s)


@pytest.mark.usefixtures("tables")
def test_energy_between_agrees_with_python(log: Store) -> None:
    """The same trapezoids, one row per device; a device that two workers sample is there once."""
    supervisor(log, processes=2)
    for index in range(2):
        write(log, worker_events(index), role="worker", index=index)
        write(log, sampler_events(index, counter_j=lambda second: 100 * second), role="sampler", index=index)
    catch_up(log)
    found = one(log, "FROM energy_between(?, 5, 15)", EXPERIMENT)
    assert (found["host"], found["device_uuid"]) == ("alpha", "GPU-0")
    assert found["integrated_energy_j"] == pytest.approx(2_000.0)
    assert found["counter_energy_j"] == pytest.approx(1_000.0)
    assert found["covered_sec"] == pytest.approx(10.0)


def test_requests_between_agrees_with_python(usual: Store) -> None:
    """Five whole requests; one more of which three tokens lie inside."""
    found = rows(usual, "FROM requests_between(?, 4.12, 15)", EXPERIMENT)
    assert [row["request_id"] for row in found] == [2, 3, 4, 5, 6, 7]
    assert [row["inside"] for row in found] == [False, True, True, True, True, True]
    assert [row["tokens_inside"] for row in found] == [3, 4, 4, 4, 4, 4]


def test_energy_goes_where_the_requests_are(usual: Store) -> None:
    """On a ramp of 10 W a second, five requests each wait 0.1 s for their first token and decode for 0.16 s; the parts are the whole."""
    idle, decoding, prefilling = rows(usual, "FROM energy_by_activity(?, 5, 15)", EXPERIMENT)
    assert [(each["prefilling"], each["decoding"]) for each in (idle, decoding, prefilling)] == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]
    assert prefilling["covered_sec"] == pytest.approx(0.5)
    assert prefilling["integrated_energy_j"] == pytest.approx(0.5 * 200.5)
    assert prefilling["mean_power_w"] == pytest.approx(200.5)
    assert decoding["integrated_energy_j"] == pytest.approx(0.8 * 201.8)
    assert idle["integrated_energy_j"] == pytest.approx(2_000 - 0.5 * 200.5 - 0.8 * 201.8)


@pytest.mark.usefixtures("tables")
def test_energy_by_activity_of_requests_beside_each_other(log: Store) -> None:
    """How many wait and decode at once; one that failed without a token waits until its end, and a device seen twice counts once."""
    failed = request(3, 20.0, tokens=0, finish_reason="error", error="no")
    supervisor(log, processes=2)
    for index in range(2):
        asked = [request(1, 12.0), request(2, 12.05), failed] if index == 0 else []
        write(log, worker_events(index, requests=asked), role="worker", index=index)
        write(log, sampler_events(index, power_w=lambda _: 100.0), role="sampler", index=index)
    catch_up(log)
    found = rows(log, "FROM energy_by_activity(?, 1, 19)", EXPERIMENT)
    spans = {(row["prefilling"], row["decoding"]): row["covered_sec"] for row in found}
    assert {state: round(sec, 6) for state, sec in spans.items()} == {
        (0, 0): 17.58,
        (0, 1): 0.05,
        (0, 2): 0.11,
        (1, 0): 0.16,
        (1, 1): 0.05,
        (2, 0): 0.05,
    }
    whole = one(log, "FROM energy_between(?, 1, 19)", EXPERIMENT)
    for column in ("covered_sec", "integrated_energy_j"):
        assert sum(row[column] for row in found) == pytest.approx(whole[column])


@pytest.mark.usefixtures("tables")
def test_throttling_as_spans(log: Store) -> None:
    """From the first sample with a reason to the first with others; being idle is none."""
    reasons = {12: 4, 13: 4 | 1, 14: 4 | 64, 20: 64}
    experiment(log, sampler=sampler_events(throttle=lambda second: reasons.get(int(second), 1)))
    catch_up(log)
    found = rows(log, "SELECT from_sec, to_sec, reasons FROM throttled_spans(?)", EXPERIMENT)
    assert [(row["from_sec"], row["to_sec"]) for row in found] == [
        pytest.approx((2.05, 4.05)),
        pytest.approx((4.05, 5.05)),
        pytest.approx((10.05, 11.05)),
    ]
    first, second, third = (row["reasons"] for row in found)
    assert len(first) == 1 and set(first) < set(second) and set(third) < set(second)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(2, 11), min_size=1, max_size=9))
@pytest.mark.slow
def test_sql_gives_the_statistics_of_python(lengths: list[int]) -> None:
    """For requests of any lengths within the window, quantiles and means over the table are those of the result."""
    with tempfile.TemporaryDirectory() as folder:
        log = Store(Path(folder) / "store").create()
        done = [request(number, 10 + 2 * number, tokens=tokens) for number, tokens in enumerate(lengths)]
        experiment(log, worker=worker_events(requests=done))
        catch_up(log)
        by_sql = one(
            log,
            "SELECT quantile_cont(e2e_ms, 0.5) AS median, quantile_cont(e2e_ms, 0.95) AS p95, avg(ttft_ms) AS ttft "
            "FROM timed_requests WHERE window_kind = 'measurement'",
        )
        found = result(log)
    assert by_sql["median"] == pytest.approx(found["e2e_median_ms"])
    assert by_sql["p95"] == pytest.approx(found["e2e_p95_ms"])
    assert by_sql["ttft"] == pytest.approx(found["ttft_mean_ms"])


def test_lineage_names_segments_blocks_events_and_digests(caught_up: Store) -> None:
    """Exactly those that an independent reading of the files finds."""
    with open_readonly(caught_up) as connection:
        found = {segment.file: segment for segment in lineage(connection, EXPERIMENT)}
    paths = sorted((caught_up.log_path / EXPERIMENT).iterdir())
    assert sorted(found) == [path.name for path in paths]
    for path in paths:
        with SegmentReader(path) as reader:
            last = list(reader.blocks())[-1]
        segment = found[path.name]
        assert segment.blocks == (0, last.end.blocks - 1)
        assert segment.events == (0, last.end.events - 1)
        assert segment.digest == last.end.digest.hex()
