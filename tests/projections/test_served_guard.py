"""A served model whose GPU only averages its power: the server works on after the measurement and idles only then."""

import math
from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec
import pytest

from llem.projections import catch_up, open_readonly
from llem.store import Store
from llem_events.events import MeteredDevice, MeterStarted, WindowClosed, WindowOpened
from tests.world import CLOSED_S, OPENED_S, Dated, device, edges, experiment, sampler_events, worker_events

pytestmark = pytest.mark.usefixtures("tables")
DRAINED_S, IDLED_S = 32.3, 34.1
REFRESH_S, PHASE_S = 0.1, 0.03


def drawn_j(second: float) -> float:
    """All until then: 90 W, in the measurement 300 W and 50 W more in its second half, 420 W in the drain, 110 W after it."""
    spans = ((0.0, 90.0), (OPENED_S, 300.0), (20.0, 350.0), (CLOSED_S, 420.0), (DRAINED_S, 110.0))
    ends = (*(start for start, _ in spans[1:]), math.inf)
    return sum(
        watts * max(0.0, min(second, end) - start) for (start, watts), end in zip(spans, ends, strict=True)
    )


def averaged_w(second: float) -> float:
    """What such a GPU tells: the mean over a second, refreshed ten times a second."""
    told_s = math.floor((second - PHASE_S) / REFRESH_S) * REFRESH_S + PHASE_S
    return drawn_j(told_s) - drawn_j(told_s - 1.0)


def windows(store: Store, *after: Dated) -> dict[str, dict[str, Any]]:
    """The rows of a run that such a GPU sampled, by kind."""
    worker = worker_events(counter_j=None)
    gpu = device(power_limit_mw=700_000)
    metered = MeteredDevice(
        device=gpu, energy_source="integrated", power_kind="average", power_window_ns=10**9
    )
    sampler = [
        (
            at_s,
            msgspec.structs.replace(event, devices=[metered]) if isinstance(event, MeterStarted) else event,
        )
        for at_s, event in sampler_events(power_w=averaged_w, source="integrated", hz=50.0)
    ]
    experiment(
        store, worker=sorted([*worker[:-1], *after, (34.5, worker[-1][1])], key=_second), sampler=sampler
    )
    catch_up(store)
    with open_readonly(store) as connection:
        return _by_kind(connection)


def _second(dated: Dated) -> float:
    return dated[0]


def _by_kind(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    asked = connection.sql(
        "SELECT kind, integration, energy_j, trapezoid_energy_j, energy_uncertainty_j FROM windows"
    )
    rows: Sequence[tuple[Any, ...]] = asked.fetchall()
    return {row[0]: dict(zip(asked.columns, row, strict=True)) for row in rows}


def window(kind: str, opened_s: float, closed_s: float) -> list[Dated]:
    """One window of a device without a counter."""
    return [
        (opened_s, WindowOpened(kind=kind, edges=edges("GPU-0", None, opened_s))),
        (closed_s, WindowClosed(kind=kind, edges=edges("GPU-0", None, closed_s))),
    ]


DRAIN = window("drain", CLOSED_S + 0.001, DRAINED_S)
GUARD = window("guard", DRAINED_S + 0.02, IDLED_S)


def test_a_guard_after_the_drain_makes_both_windows_exact(log: Store) -> None:
    """The drain is told from the idling after it, and the measurement from both; each truth lies within its bound."""
    found = windows(log, *DRAIN, *GUARD)
    for kind, true_j in (
        ("measurement", drawn_j(CLOSED_S) - drawn_j(OPENED_S)),
        ("drain", drawn_j(DRAINED_S) - drawn_j(CLOSED_S + 0.001)),
    ):
        told = found[kind]
        assert told["integration"] == "telescoped"
        assert abs(told["energy_j"] - true_j) <= told["energy_uncertainty_j"] < 100.0
        assert abs(told["energy_j"] - true_j) < 10.0 < abs(told["trapezoid_energy_j"] - true_j)


@pytest.mark.parametrize("after", [DRAIN, GUARD], ids=["no guard", "a guard too late"])
def test_without_a_guard_that_follows_the_trapezoid_stands(log: Store, after: list[Dated]) -> None:
    """What came after the measurement cannot be told from it."""
    told = windows(log, *after)["measurement"]
    assert told["integration"] == "trapezoid"
    assert told["energy_j"] == told["trapezoid_energy_j"]
