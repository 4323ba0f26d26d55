"""A run of any size: its figures do not depend on how many pieces its columns are read in, and are numpy's."""

from pathlib import Path

import numpy as np
import pytest

from llem.projections import catch_up
from llem.projections.derive import requests
from llem.store import Store
from llem_events.events import Request
from tests.projections.fake_log import at, request, sampler_events, supervisor, worker_events, write
from tests.projections.tables import hashes, one, result

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
