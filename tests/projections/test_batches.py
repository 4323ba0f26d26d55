"""Energy of batches, of their phases, and its shares by request."""

import msgspec
import pytest

from llem.projections import catch_up
from llem.results.phases import allocate
from llem.store import Store
from llem_events.events import RequestsCompleted
from tests.projections.tables import one, rows
from tests.world import at, experiment, request, sampler_events, worker_events

pytestmark = pytest.mark.usefixtures("tables")


def long_batch(log: Store, *, source: str = "counter") -> None:
    """An experiment with one further batch from 12 s to 28 s, its first token at 16 s, of 60 and 20 tokens."""
    base = msgspec.structs.replace(request(0, 12.0), batch_index=99, start_ns=at(12), end_ns=at(28))
    both = [
        msgspec.structs.replace(
            base,
            request_id=900 + row,
            first_token_ns=at(16),
            input_tokens=tokens,
            output_tokens=10,
            token_times_ns=[at(16 + step) for step in range(10)],
        )
        for row, tokens in enumerate((50, 10))
    ]
    batch = (28.0, RequestsCompleted(window="measurement", requests=both))
    events = sorted([*worker_events(), batch], key=lambda dated: dated[0])
    experiment(log, worker=events, sampler=sampler_events(source=source))
    catch_up(log)


def test_phases_of_a_long_batch_are_told_apart(log: Store) -> None:
    """Between them the ramp's energy from 12 s to 28 s, by whichever sensor the rest of the result prefers."""
    long_batch(log)
    batch = one(log, "FROM batches WHERE batch_index = 99")
    assert (batch["requests"], batch["input_tokens"], batch["output_tokens"]) == (2, 60, 20)
    assert batch["prefill_energy_j"] == pytest.approx(4 * 140.0, rel=0.06)
    assert batch["decode_energy_j"] == pytest.approx(12 * 220.0, rel=0.06)
    assert batch["energy_j"] == pytest.approx(batch["prefill_energy_j"] + batch["decode_energy_j"])
    assert batch["reason"] is batch["prefill_reason"] is batch["decode_reason"] is None


@pytest.mark.parametrize("source", ["estimated", "simulated"])
def test_what_no_sensor_read_says_so_of_batches_too(log: Store, source: str) -> None:
    """The source of a batch, of its phases and of its requests is what the meter says of its figures, never counter or integrated."""
    long_batch(log, source=source)
    (named,) = rows(
        log,
        "SELECT DISTINCT energy_source, prefill_source, decode_source FROM batches WHERE batch_index = 99",
    )
    assert set(named.values()) == {source}
    (shared,) = rows(log, "SELECT DISTINCT energy_source FROM request_energies WHERE batch_index = 99")
    assert shared["energy_source"] == source


def test_a_short_batch_has_a_reason_instead(log: Store) -> None:
    """260 ms are too short for the samples: NULL, and why."""
    long_batch(log)
    short = rows(log, "FROM batches WHERE batch_index <> 99")
    assert short
    assert {batch["energy_j"] for batch in short} == {None}
    assert all("can be resolved" in batch["reason"] for batch in short)


def test_a_batch_without_a_token_has_no_time_of_a_first_one(log: Store) -> None:
    """NULL, as its phases are, and not the number that stands for it while it is computed."""
    failed = request(
        900, 12.0, tokens=0, output_tokens=0, first_token_ns=None, finish_reason="error", error="e"
    )
    failed = msgspec.structs.replace(failed, batch_index=99, start_ns=at(12), end_ns=at(28))
    batch = (28.0, RequestsCompleted(window="measurement", requests=[failed]))
    experiment(log, worker=sorted([*worker_events(), batch], key=lambda dated: dated[0]))
    catch_up(log)
    found = one(log, "FROM batches WHERE batch_index = 99")
    assert (found["start_ns"], found["end_ns"], found["first_token_ns"]) == (at(12), at(28), None)
    assert found["prefill_energy_j"] is None and found["decode_energy_j"] is None


def test_requests_share_their_batchs_energy_by_tokens(log: Store) -> None:
    """The view gives what `allocate` gives."""
    long_batch(log)
    batch = one(log, "FROM batches WHERE batch_index = 99")
    found = rows(
        log, "SELECT energy_allocated_j FROM request_energies WHERE batch_index = 99 ORDER BY request_id"
    )
    shares = [row["energy_allocated_j"] for row in found]
    assert shares == pytest.approx(allocate(batch["energy_j"], [60, 20]))
    assert sum(shares) == pytest.approx(batch["energy_j"])
