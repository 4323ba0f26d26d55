"""A run of any size: its figures do not depend on how many pieces its columns are read in, and are numpy's."""

from pathlib import Path

import numpy as np
import pytest

from llem.projections import catch_up, rebuild, sample_pieces
from llem.projections.derive import batches, pieces, requests, stored
from llem.store import Store
from llem_events.events import Request
from tests.projections.tables import hashes, one, result, rows
from tests.world import at, experiment, request, sampler_events, supervisor, worker_events, write

pytestmark = pytest.mark.usefixtures("tables")
PROCESSES, OPENED_S, CLOSED_S = 2, 10.0, 30.0


def requests_of(index: int) -> list[Request]:
    """Forty requests of up to six tokens, some failed, one before the window opens and one after it closes."""
    rng = np.random.default_rng(index)
    found = []
    for number in range(40):
        arrival_s = 9.9 + 0.5 * number + float(rng.random() / 3)
        tokens = int(rng.integers(0, 7))
        first_ns = at(arrival_s + 0.05)
        times = (first_ns + np.cumsum(rng.integers(1, 4 * 10**7, tokens))).tolist()
        reason = "error" if number % 9 == 4 else "length"
        found.append(
            request(
                number,
                arrival_s,
                tokens=tokens,
                request_id=100 * index + number,
                batch_index=number // 2,
                batch_size=2,
                first_token_ns=times[0] if times else None,
                token_times_ns=times,
                end_ns=(times[-1] if times else first_ns) + 10**6,
                finish_reason=reason,
            )
        )
    return found


def write_run(store: Store) -> list[list[Request]]:
    """Two processes, and what they did."""
    supervisor(store, processes=PROCESSES)
    done = [requests_of(index) for index in range(PROCESSES)]
    for index, of_process in enumerate(done):
        uuid = f"GPU-{index}"
        write(store, worker_events(index, uuid=uuid, requests=of_process), role="worker", index=index)
        write(store, sampler_events(index, uuid=uuid), role="sampler", index=index)
    return done


def finished(done: list[list[Request]]) -> list[Request]:
    """Those that ran to their end within the window."""
    opened_ns, closed_ns = at(OPENED_S), at(CLOSED_S)
    return [
        one
        for of_process in done
        for one in of_process
        if one.finish_reason == "length" and opened_ns <= one.arrival_ns and one.end_ns <= closed_ns
    ]


def test_percentiles_are_numpys(log: Store) -> None:
    """Over the values of both processes together, to the last digit."""
    ended = finished(write_run(log))
    catch_up(log)
    gaps = [np.diff(one.token_times_ns) / 1e6 for one in ended]
    values = {
        "ttft": [(one.first_token_ns - one.arrival_ns) / 1e6 for one in ended if one.first_token_ns],
        "itl": np.concatenate(gaps),
        "itl_trimmed": np.concatenate([of_one[1:-1] for of_one in gaps]),
        "e2e": [(one.end_ns - one.arrival_ns) / 1e6 for one in ended],
    }
    row = result(log)
    for series, ms in values.items():
        shown = [row[f"{series}_{name}_ms"] for name in ("median", "p95", "p99")]
        assert shown == np.percentile(ms, (50, 95, 99)).tolist(), series


@pytest.mark.slow
def test_the_pieces_do_not_show(log: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests read a few at a time give the tables that they give at once."""
    write_run(log)
    catch_up(log)
    again = Store(tmp_path / "again").create()
    write_run(again)
    monkeypatch.setattr(requests, "PIECE_VALUES", 7)
    catch_up(again)
    whole, in_pieces = hashes(log), hashes(again)
    assert whole | {"segments": ""} == in_pieces | {"segments": ""}  # these hold when a file was written
    assert one(log, "SELECT count(*) AS n FROM requests")["n"] == 2 * 40 + PROCESSES


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments of any size go the way of large ones."""
    monkeypatch.setattr(sample_pieces, "PIECE_SAMPLES", 7)
    monkeypatch.setattr(sample_pieces, "SMALL_ROWS", 0)
    monkeypatch.setattr(stored, "THINNED_FROM", 0)
    monkeypatch.setattr(pieces, "AT_ONCE", 50)
    monkeypatch.setattr(batches, "MAX_BATCHES", 4)


@pytest.mark.slow
def test_samples_in_pieces_say_the_same(log: Store, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Energies, gaps, throttling and phases, from sums over pieces and samples around edges as from all samples at once."""
    write_run(log)
    catch_up(log)
    again = Store(tmp_path / "again").create()
    write_run(again)
    request.getfixturevalue("in_pieces")
    catch_up(again)
    for table in ("experiment_results", "raw_process_results", "windows", "batches"):
        columns = "* EXCLUDE (result)" if table.endswith("results") else "*"
        whole, in_pieces = (
            rows(store, f"SELECT {columns} FROM {table} ORDER BY ALL") for store in (log, again)
        )
        for before, after in zip(whole, in_pieces, strict=True):
            for name, figure in before.items():
                close = pytest.approx(figure, rel=1e-9) if isinstance(figure, float) else figure
                assert after[name] == close, (table, name)


def test_a_batch_without_a_token_does_not_hide_the_phases_of_others(log: Store) -> None:
    """The first batch of the window fails; what the next one took to decode is known."""
    failed = request(0, 10.5, tokens=0, finish_reason="error", error="ValueError: no")
    slow = [at(12.0 + number) for number in range(1, 8)]
    answered = request(1, 12.0, tokens=7, token_times_ns=slow, first_token_ns=slow[0], end_ns=slow[-1] + 1)
    experiment(log, worker=worker_events(requests=[failed, answered]))
    catch_up(log)
    first, second = rows(log, "FROM batches ORDER BY batch_index")
    assert (first["decode_energy_j"], first["decode_reason"]) == (None, "there was no first token")
    assert second["decode_energy_j"] == pytest.approx(6 * 160.0)  # from 130 to 190 W


@pytest.mark.slow
@pytest.mark.usefixtures("in_pieces")
def test_a_piece_that_was_written_in_two_parts_is_as_one(log: Store) -> None:
    """Where a catch-up began in the middle of pieces, all tables are those of a rebuild."""
    supervisor(log)
    write(log, worker_events(requests=requests_of(0)), role="worker", index=0)
    throttled = sampler_events(
        throttle=lambda second: 4 * (int(second) % 2), counter_j=lambda second: 100 * second
    )
    path = write(log, throttled, role="sampler", index=0, blocks=12)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    catch_up(log)
    path.write_bytes(content)
    catch_up(log)
    assert (
        one(log, "SELECT max(n) AS n FROM (SELECT count(*) AS n FROM sample_pieces GROUP BY piece)")["n"] == 2
    )
    assert rebuild(log, check=True).changed_tables == []


@pytest.mark.slow
def test_a_small_experiment_that_grew_large_is_added_up_from_its_beginning(
    log: Store, request: pytest.FixtureRequest
) -> None:
    """Small ones have no sums; a further process makes it large, and its tables those of a rebuild."""
    supervisor(log, processes=2)
    for index in range(2):
        write(log, worker_events(index), role="worker", index=index)
        write(log, sampler_events(index), role="sampler", index=index)
        catch_up(log)
        added_up = one(log, "SELECT coalesce(sum(samples), 0) AS n FROM sample_pieces")["n"]
        samples = one(log, "SELECT count(*) AS n FROM samples")["n"]
        assert samples and added_up == (samples if index else 0)
        if not index:
            request.getfixturevalue("in_pieces")
    assert rebuild(log, check=True).changed_tables == []


@pytest.mark.slow
@pytest.mark.usefixtures("in_pieces")
def test_samples_that_stand_between_those_of_another_run_are_found(log: Store) -> None:
    """Two runs that were taken in turns have the figures of a rebuild, in which each stands for itself."""
    contents = {}
    for experiment_id in ("run-1", "run-2"):
        supervisor(log, experiment_id=experiment_id)
        write(log, worker_events(), role="worker", index=0, experiment_id=experiment_id)
        path = write(log, sampler_events(), role="sampler", index=0, blocks=8, experiment_id=experiment_id)
        contents[path] = path.read_bytes()
        # Never seen with its seal before the end: nobody would look at it again.
        path.write_bytes(contents[path][: len(contents[path]) // 3])
    for share in (3, 2, 1):
        for path, content in contents.items():
            path.write_bytes(content[: len(content) // share])
            catch_up(log)
    assert rebuild(log, check=True).changed_tables == []
