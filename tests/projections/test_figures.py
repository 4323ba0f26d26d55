"""Figures of results against the same figures worked out by hand from the chosen events."""

import pytest

from llem.projections import catch_up
from llem.store import Store
from llem_events.events import ExperimentInterrupted, ProcessFailed, WarmupCompleted
from tests.projections.tables import one, result, rows
from tests.world import (
    OFFSET_NS,
    ORIGIN_NS,
    at,
    experiment,
    request,
    sampler_events,
    supervisor,
    worker_events,
    write,
)

pytestmark = pytest.mark.usefixtures("tables")


def process(log: Store, worker: list, sampler: list, index: int = 0, **header: object) -> None:
    """A worker's and its sampler's segment."""
    write(log, worker, role="worker", index=index, **header)
    write(log, sampler, role="sampler", index=index, **header)


def single(log: Store, *, plan: object = None, sampler: list | None = None, **worker: object) -> dict:
    """The result of an experiment with one process."""
    experiment(log, plan=plan, worker=worker_events(**worker), sampler=sampler)
    catch_up(log)
    return result(log)


def test_energy_is_the_counter_and_the_integral_is_kept_beside_it(usual: Store) -> None:
    """The counter rose by 4,080 J; a ramp from 100 to 300 W over 20 s is 4,000 J."""
    found = result(usual)
    assert found["total_energy_j"] == 4_080.0
    assert found["energy_source"] == "counter"
    window = one(usual, "FROM windows WHERE kind = 'measurement'")
    assert window["counter_energy_j"] == 4_080.0
    assert window["integrated_energy_j"] == pytest.approx(4_000.0, rel=1e-9)
    assert found["energy_disagreement"] == pytest.approx(80 / 4_080)


def test_what_follows_from_energy(usual: Store) -> None:
    """Idle power of 50 W over 20 s leaves 3,080 J; 120 tokens, 40 of them output."""
    found = result(usual)
    assert found["baseline_power_w"] == 50.0
    assert found["energy_adjusted_j"] == pytest.approx(3_080.0)
    assert found["avg_energy_per_token_j"] == pytest.approx(34.0)
    assert found["energy_per_output_token_j"] == pytest.approx(102.0)
    assert found["mean_power_w"] == pytest.approx(204.0)


def test_tokens_time_and_latency(usual: Store) -> None:
    """Ten requests of 8 and 4 tokens in 20 s; the warm-up request does not count."""
    found = result(usual)
    counts = [found[name] for name in ("requests", "input_tokens", "output_tokens", "total_tokens")]
    assert counts == [10, 80, 40, 120]
    assert (found["start_ns"], found["end_ns"]) == (at(10) + OFFSET_NS, at(30) + OFFSET_NS)
    assert found["duration_sec"] == 20.0
    assert found["tokens_per_second"] == found["avg_tokens_per_second"] == 6.0
    assert found["ttft_p95_ms"] == pytest.approx(100.0)
    assert found["itl_mean_ms"] == pytest.approx(50.0)
    assert found["e2e_median_ms"] == pytest.approx(260.0)


def test_energy_of_no_token_is_no_ratio(log: Store) -> None:
    """4,080 J and a request that failed: NULL in the row and in the view, never infinite."""
    failed = request(0, 12.0, tokens=0, finish_reason="error", error="out of memory")
    found = single(log, requests=[failed])
    assert (found["total_energy_j"], found["total_tokens"]) == (4_080.0, 0)
    view = one(log, "FROM energy_per_token")
    for name in ("avg_energy_per_token_j", "energy_per_output_token_j"):
        assert (found[name], view[name]) == (None, None), name


def test_chunks_are_not_token_times(log: Store) -> None:
    """A request whose tokens came in two chunks has a first token and an end, and no gap between tokens."""
    chunked = request(0, 10.0, token_times_ns=[], chunk_times_ns=[at(10.1), at(10.3)], chunk_tokens=[2, 2])
    found = single(log, requests=[chunked])
    assert (found["itl_mean_ms"], found["itl_trimmed_mean_ms"]) == (None, None)
    assert (found["ttft_mean_ms"], found["output_tokens"]) == (pytest.approx(100.0), 4)


def test_energy_of_counters_is_exact(log: Store) -> None:
    """7,804.706 J are 7,804.706 J, however high the counter stands, and idle power leaves an exact rest."""
    found = single(log, counter_j=(987_654_321.123, 987_662_125.829))
    assert (found["total_energy_j"], found["energy_adjusted_j"]) == (7_804.706, 6_804.706)
    assert one(log, "FROM windows WHERE kind = 'measurement'")["counter_energy_j"] == 7_804.706


def test_flops_by_hand(usual: Store) -> None:
    """A prompt: 2 (900 x 8 + 100) + 4 x 12 x 2 x 8 x 8; three tokens: 2 x 1,000 x 3 + 4 x 12 x 2 (9 + 10 + 11)."""
    assert result(usual)["total_flops"] == 10 * (14_600 + 6_144 + 6_000 + 2_880)


def test_health_of_the_devices(usual: Store) -> None:
    """Utilisation, memory and temperature are those of the measurement window; nothing speaks against the result."""
    found = result(usual)
    assert found["gpu_utilisation_pct"] == 90.0
    assert found["peak_memory_mb"] == 512.0
    assert found["max_temperature_c"] == 60.0
    assert found["throttle_detected"] is False
    assert found["invalid_reasons"] == []
    assert found["valid"] is True


def test_a_device_without_a_counter_is_integrated(log: Store) -> None:
    """The source says so."""
    found = single(log, counter_j=None)
    assert found["total_energy_j"] == pytest.approx(4_000.0, rel=1e-9)
    assert found["energy_source"] == "integrated"


def test_not_measured_is_null_with_a_reason(log: Store) -> None:
    """No counter and no power sensor: no energy, no figure that follows from it, and the meter's own reason."""
    found = single(log, counter_j=None, sampler=sampler_events(power_w=None))
    for name in ("total_energy_j", "energy_source", "avg_energy_per_token_j", "energy_adjusted_j"):
        assert found[name] is None, name
    texts = [row["text"] for row in rows(log, "FROM warnings WHERE code = 'energy_not_measured'")]
    assert texts == ["energy of GPU-0 was not measured: no power sensor"]
    assert found["valid"] is False


def test_without_a_sampler_nothing_is_zero(log: Store) -> None:
    """A worker whose sampler never started keeps its tokens and has no energy."""
    supervisor(log)
    write(log, worker_events(counter_j=None), role="worker", index=0)
    catch_up(log)
    found = result(log)
    assert (found["total_tokens"], found["total_energy_j"], found["meter"]) == (120, None, None)
    assert "no sampler started" in one(log, "FROM windows WHERE kind = 'measurement'")["reason"]


def test_sources_that_disagree_are_flagged(log: Store) -> None:
    """Counter 8,000 J against 4,000 J of integrated power."""
    found = single(log, counter_j=(0.0, 8_000.0))
    assert found["energy_disagreement"] == pytest.approx(0.5)
    assert any("differ by 50.0%" in reason for reason in found["invalid_reasons"])
    assert one(log, "FROM warnings WHERE code = 'energy_disagreement'")["threshold"] == 0.05


def test_an_estimate_disagrees_with_nothing(log: Store) -> None:
    """The same distance within an estimate is no reason and no warning: it has its own reason."""
    found = single(log, counter_j=(0.0, 8_000.0), sampler=sampler_events(source="estimated"))
    assert (found["energy_source"], found["energy_disagreement"]) == ("estimated", None)
    assert not any("differ" in reason for reason in found["invalid_reasons"])
    assert rows(log, "FROM warnings WHERE code = 'energy_disagreement'") == []


@pytest.mark.parametrize("converged", [False, True])
def test_a_warm_up_that_did_not_converge_is_warned_of(log: Store, converged: bool) -> None:
    """What was measured before latencies had settled is not believed in silence."""
    warmup = WarmupCompleted(
        latencies_ms=[9.0, 5.0, 9.0],
        coefficient_of_variation=0.3,
        converged=converged,
        reason="converged" if converged else "warmup_max_s reached",
    )
    experiment(log, worker=sorted([*worker_events(), (8.0, warmup)], key=lambda dated: dated[0]))
    catch_up(log)
    told = rows(log, "SELECT process_index, text, value FROM warnings WHERE code = 'warmup_not_converged'")
    text = "the warm-up of process 0 did not converge: warmup_max_s reached, and the last batches' times varied by 30.0%"
    assert [tuple(row.values()) for row in told] == ([] if converged else [(0, text, 0.3)])
    assert (text in result(log)["result"]) is not converged


def test_a_counter_that_ran_backwards_is_not_believed(log: Store) -> None:
    """A reset driver: the integral stands in."""
    found = single(log, counter_j=(5_000.0, 100.0))
    assert found["total_energy_j"] == pytest.approx(4_000.0, rel=1e-9)
    assert found["energy_source"] == "integrated"


def test_estimated_energy_stays_an_estimate(log: Store) -> None:
    """Whatever the curve, the label is the meter's."""
    found = single(log, counter_j=None, sampler=sampler_events(source="estimated"))
    assert found["energy_source"] == "estimated"
    assert found["valid"] is False


def test_throttling_counts_elapsed_time(log: Store) -> None:
    """Hardware thermal slowdown from 15 s to 17 s is 2 s, at whatever rate it was sampled."""
    throttled = sampler_events(throttle=lambda second: 0x40 if 15 <= second < 17 else 0, hz=5)
    found = single(log, sampler=throttled)
    assert found["throttle_detected"] is True
    assert found["throttle_sec"] == pytest.approx(2.0)
    assert any("throttled" in reason for reason in found["invalid_reasons"])


def test_temperature_drift_is_judged(log: Store) -> None:
    """From 60 C to 79 C within the window."""
    found = single(log, sampler=sampler_events(temperature_c=lambda second: 60 + max(0.0, second - 10.55)))
    assert any("temperature moved by 19.0 C" in reason for reason in found["invalid_reasons"])


def test_failed_requests_do_no_work(log: Store) -> None:
    """One of ten fails: its tokens do not count, and 10 % is too many."""
    done = [request(number, 10 + 2 * number) for number in range(9)]
    failed = request(9, 28.0, tokens=0, finish_reason="error", error="out of memory")
    found = single(log, requests=[*done, failed])
    assert (found["requests"], found["failed_requests"], found["total_tokens"]) == (10, 1, 108)
    assert any("10.0% of the requests failed" in reason for reason in found["invalid_reasons"])


def test_two_processes_are_summed(pair: Store) -> None:
    """Every process has its own GPU."""
    found = result(pair)
    assert found["total_energy_j"] == 8_160.0
    assert found["total_tokens"] == 240
    assert (found["tokens_per_second"], found["avg_tokens_per_second"]) == (12.0, 6.0)
    assert found["total_inference_time_sec"] == 40.0
    assert found["valid"] is True
    assert len(rows(pair, "FROM raw_process_results")) == 2


def test_a_shared_device_counts_once(log: Store) -> None:
    """Two processes on one GPU, the second one's window two seconds later: 1,000 J to 5,400 J over the union."""
    supervisor(log, processes=2)
    process(log, worker_events(0), sampler_events(0))
    later = worker_events(1, opened_s=12.0, closed_s=32.0, counter_j=(1_200.0, 5_400.0))
    process(log, later, sampler_events(1), index=1)
    catch_up(log)
    found = result(log)
    assert found["total_energy_j"] == pytest.approx(4_400.0)
    assert any("shared by processes 0, 1" in row["text"] for row in rows(log, "FROM warnings"))


def test_hosts_meet_on_the_wall_clock(log: Store) -> None:
    """The same monotonic times on a host whose clock stands five seconds ahead: windows overlap for 15 of 25 s."""
    supervisor(log, processes=2)
    process(log, worker_events(0), sampler_events(0))
    beta = {"host": "beta", "boot_id": "other", "wall_ns": ORIGIN_NS + OFFSET_NS + 5 * 10**9}
    process(log, worker_events(1, host="beta"), sampler_events(1, host="beta"), index=1, **beta)
    catch_up(log)
    found = result(log)
    assert found["duration_sec"] == 25.0
    assert found["tokens_per_second"] == pytest.approx(240 / 25)
    assert found["total_energy_j"] == 8_160.0  # GPU-0 of alpha is not GPU-0 of beta


def test_a_killed_worker_keeps_what_it_wrote(log: Store) -> None:
    """Four requests, then nothing: the window ends with the fourth, at 6.26 s; the ramp gives 821.938 J."""
    supervisor(log)
    write(log, worker_events()[:13], role="worker", index=0, seal=False)
    write(log, sampler_events(), role="sampler", index=0)
    catch_up(log)
    found = result(log)
    assert (found["status"], found["requests"], found["valid"]) == ("incomplete", 4, False)
    assert found["duration_sec"] == pytest.approx(6.26)
    assert found["total_energy_j"] == pytest.approx(626 + 5 * 6.26**2)
    assert found["energy_source"] == "integrated"


def test_a_counter_in_the_samples_serves_where_an_edge_is_missing(log: Store) -> None:
    """100 J a second until the fourth request of a killed worker ended."""
    supervisor(log)
    write(log, worker_events()[:13], role="worker", index=0, seal=False)
    write(log, sampler_events(counter_j=lambda second: 100 * second), role="sampler", index=0)
    catch_up(log)
    assert result(log)["total_energy_j"] == pytest.approx(626.0, abs=0.01)


def test_an_interrupted_experiment_is_called_so(log: Store) -> None:
    """With its reason."""
    experiment(log, end=ExperimentInterrupted(reason="Ctrl-C", processes_completed=1, processes_failed=0))
    catch_up(log)
    assert result(log)["status"] == "interrupted"
    assert one(log, "FROM experiments")["problem"] == "Ctrl-C"


def test_a_failed_experiment_has_a_row_and_no_figures(log: Store) -> None:
    """The model was never loaded."""
    supervisor(log)
    failure = ProcessFailed(
        process_index=0, error_type="EngineError", message="no such model", stage="loading"
    )
    write(log, [worker_events()[0], (2.0, failure)], role="worker", index=0)
    catch_up(log)
    found = result(log)
    assert (found["status"], found["processes"], found["total_tokens"], found["result"]) == (
        "failed",
        0,
        None,
        None,
    )
    assert one(log, "FROM experiments")["problem"] == "loading: no such model"


def test_a_missing_process_makes_the_experiment_incomplete(log: Store) -> None:
    """Two were expected, one wrote."""
    supervisor(log, processes=2)
    process(log, worker_events(), sampler_events())
    catch_up(log)
    found = result(log)
    assert (found["status"], found["processes"], found["expected_processes"]) == ("incomplete", 1, 2)
    assert any("missing process indices 1" in row["text"] for row in rows(log, "FROM warnings"))
