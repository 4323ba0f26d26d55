"""The energy of a server's requests: of every tenth of a second, what each got in it; known here because the power is 100 W, then 200 W."""

from collections.abc import Sequence
from typing import Any

import pytest

from llem.projections import catch_up
from llem.store import Store
from llem_events.events import Request, ServerStarted, WindowClosed, WindowOpened
from tests.projections.in_memory import usual
from tests.projections.tables import result, rows
from tests.world import Dated, at, edges, experiment, request, sampler_events, worker_events

BEFORE_J, AFTER_J = 10.0, 20.0  # of a tenth of a second before 18 s, and after


def asked(number: int, start_s: float, end_s: float, *token_s: float, **fields: Any) -> Request:
    """A request with the moments of its tokens."""
    times = [at(second) for second in token_s]
    return request(
        number,
        start_s,
        tokens=0,
        output_tokens=len(times),
        token_times_ns=times,
        first_token_ns=times[0],
        end_ns=at(end_s),
        **fields,
    )


REQUESTS = [
    asked(0, 12.05, 14.05, 13.05, 13.55),
    asked(1, 20.05, 21.05, 21.05, input_tokens=8),
    asked(2, 20.05, 21.05, 21.05, input_tokens=24),
    asked(3, 24.05, 26.05, 24.55, 25.95),
    asked(4, 24.05, 26.05, 24.55, 25.05, finish_reason="error"),
]


def served(requests: Sequence[Request] = REQUESTS, **options: Any) -> list[Dated]:
    """What the worker of a server writes."""
    first, *others = worker_events(requests=requests, **options)
    return [first, (0.6, ServerStarted(kind="simulated", managed=True, url="http://127.0.0.1:1")), *others]


def in_two_windows() -> list[Dated]:
    """The measurement stops at 18 s and goes on at 19 s."""
    closed = WindowClosed(kind="measurement", edges=edges("GPU-0", 3_000_000, 18.0))
    opened = WindowOpened(kind="measurement", window_index=1, edges=edges("GPU-0", 3_000_000, 19.0))
    return sorted([*served(), (18.0, closed), (19.0, opened)], key=lambda dated: dated[0])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same requests where their energy is known, where it is not, and where they were measured in two windows."""
    store = Store(tmp_path_factory.mktemp("shares") / "store").create()
    known = sampler_events(power_w=lambda second: 100.0 if second < 18.0 else 200.0)
    unknown = sampler_events(power_w=None)
    experiment(store, worker=served(counter_j=(1_000.0, 4_200.0)), sampler=known)
    experiment(store, experiment_id="unknown", worker=served(counter_j=None), sampler=unknown)
    experiment(store, experiment_id="pieces", worker=in_two_windows(), sampler=known)
    catch_up(store)
    return store


def test_requests_share_each_moment_by_their_tokens(store: Store) -> None:
    """One alone has all, two prompts by their lengths; a failed one gets of what nobody works for, and the rest is idle."""
    (shared,) = rows(store, "SELECT list(energy_attributed_j ORDER BY request_id) AS j FROM request_shares")
    together = 8 * 0.05 + 24 * 0.05 + 2
    steps = [
        10 / 4 + (8 * 0.05 + 1) / together,
        10 * 3 / 4 + (24 * 0.05 + 1) / together,
        7 + 14 / 2,
        14 / 2,
    ]
    assert shared["j"] == pytest.approx([21 * BEFORE_J, *(AFTER_J * count for count in steps)], rel=1e-3)
    assert result(store)["idle_energy_j"] == pytest.approx(3_200.0 - sum(shared["j"]))


@pytest.mark.parametrize("experiment_id", ["unknown", "pieces"])
def test_requests_have_no_share_of_what_is_not_known(store: Store, experiment_id: str) -> None:
    """Without energy, and in several windows, none is told; all other figures are."""
    row = result(store, experiment_id)
    assert (row["status"], row["requests"], row["idle_energy_j"]) == ("completed", 5, None)
    assert rows(store, "FROM request_shares WHERE experiment_id = ?", experiment_id) == []


def test_a_measurement_shorter_than_two_steps_is_one() -> None:
    """Who has three of four tokens has three quarters of the energy, though the power doubles in between."""
    closed_s = 10.14
    requests = [
        asked(0, 10.0, 10.13, 10.01, 10.02, 10.03, input_tokens=0),
        asked(1, 10.0, 10.13, 10.12, input_tokens=0),
    ]
    sampler = sampler_events(power_w=lambda second: 100.0 if second < 10.07 else 200.0)
    worker = served(requests, counter_j=(1_000.0, 1_040.0), closed_s=closed_s)
    (measured,) = usual(worker=worker, sampler=sampler).measured
    assert measured.shares is not None
    assert measured.shares.energy_j.tolist() == pytest.approx([30.0, 10.0])
    assert measured.shares.are_whole.tolist() == [True, True]
