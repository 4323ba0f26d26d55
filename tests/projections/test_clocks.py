"""Windows of several hosts are placed on one clock, by what was found when their clocks were compared."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.plan import Plan, ValidityPlan
from llem.projections import catch_up
from llem.projections.derive.clocks import placements
from llem.store import Store
from llem_events.events import ClocksCompared, HostJoined
from tests.projections.tables import one, result, rows
from tests.projections.test_conservation import reasons
from tests.world import OFFSET_NS, ORIGIN_NS, sampler_events, supervisor, worker_events, write

pytestmark = pytest.mark.usefixtures("tables")

AHEAD_NS = 2 * 10**9
BETA = {"host": "beta", "boot_id": "beta"}


def compared(position: str = "before", **fields: Any) -> ClocksCompared:
    usual: dict[str, Any] = {
        "position": position,
        "rank": 1,
        "host": "beta",
        "reference_host": "alpha",
        "offset_ns": AHEAD_NS,
        "monotonic_offset_ns": 0,
        "error_ns": 40_000,
        "exchanges": 32,
    }
    return ClocksCompared(**usual | fields)


def two_hosts(
    log: Store,
    *,
    comparisons: Sequence[ClocksCompared] = (),
    ahead_ns: int = AHEAD_NS,
    later_s: float = 0.0,
    plan: Plan | None = None,
) -> None:
    """Two ranks that measure side by side, the second one's wall clock ahead, and its window later."""
    supervisor(log, processes=2, plan=plan)
    for index, header in enumerate(({"host": "alpha", "boot_id": "boot"}, BETA)):
        wall_ns = ORIGIN_NS + OFFSET_NS + index * ahead_ns
        opened_s = 10.0 + index * later_s
        place: dict[str, Any] = {"index": index, "wall_ns": wall_ns, **header}
        of_it = {"uuid": f"GPU-{index}", "host": header["host"]}
        worker = worker_events(index, opened_s=opened_s, closed_s=opened_s + 20, **of_it)
        write(log, worker, role="worker", **place)
        write(log, sampler_events(index, **of_it), role="sampler", **place)
    joined = HostJoined(rank=1, size=2, host="beta", launcher="slurm", local_rank=0, local_size=1)
    wall_ns = ORIGIN_NS + OFFSET_NS + ahead_ns
    events = [joined, *comparisons]
    write(log, [(0.1, event) for event in events], role="rank", wall_ns=wall_ns, **BETA)


@pytest.fixture
def log(tmp_path: Any) -> Store:
    return Store(tmp_path / "store").create()


@pytest.mark.slow
def test_a_wall_clock_that_is_ahead_changes_no_figure(log: Store, tmp_path: Any) -> None:
    """Tokens per second are those of clocks that agree; the offset and its bound are columns."""
    true = Store(tmp_path / "true").create()
    two_hosts(true, ahead_ns=0, comparisons=[compared(offset_ns=0)])
    two_hosts(log, comparisons=[compared(), compared("after", offset_ns=AHEAD_NS + 7)])
    catch_up(true)
    catch_up(log)
    found, expected = result(log), result(true)
    assert found["tokens_per_second"] == pytest.approx(expected["tokens_per_second"], rel=1e-6)
    assert found["total_energy_j"] == expected["total_energy_j"]
    assert reasons(log) == []
    row = one(log, "FROM hosts")
    assert (row["clock_offset_ns"], row["clock_offset_after_ns"]) == (AHEAD_NS, AHEAD_NS + 7)
    assert (row["clock_error_ns"], row["placement_error_ns"]) == (40_000, 40_000)
    assert (row["rank"], row["ranks"], row["local_size"], row["node_rank"]) == (1, 2, 1, None)


def test_monotonic_clocks_of_hosts_need_not_have_begun_together(log: Store) -> None:
    """The windows stand where the comparison puts them, whatever the wall clock says."""
    two_hosts(log, comparisons=[compared(monotonic_offset_ns=10_000)], ahead_ns=55)
    catch_up(log)
    starts = rows(log, "SELECT start_time FROM windows WHERE kind = 'measurement' ORDER BY process_index")
    assert (starts[0]["start_time"] - starts[1]["start_time"]).total_seconds() == 10e-6


def test_without_a_comparison_nothing_is_believed(log: Store) -> None:
    """Two seconds ahead is 40 % of the throughput, and nobody can know."""
    two_hosts(log)
    catch_up(log)
    assert [code for code, _ in reasons(log)] == ["clocks_apart"]
    assert "not compared" in reasons(log)[0][1]
    assert one(log, "FROM hosts")["clock_offset_ns"] is None


@pytest.mark.parametrize(
    ("error_ns", "later_s", "said"),
    [
        (300_000_000, 0.0, "known to 0.3 s, 1.5% of the measurement"),
        (40_000, 0.5, "began to measure 0.5 s apart, 2.5%"),
        (100_000_000, 0.1, None),
    ],
)
def test_what_is_worse_than_a_hundredth_of_the_window_is_a_reason(
    log: Store, error_ns: int, later_s: float, said: str | None
) -> None:
    """Neither a wide bound nor hosts that began apart leave a throughput to be believed."""
    two_hosts(log, comparisons=[compared(error_ns=error_ns)], later_s=later_s)
    catch_up(log)
    assert [code for code, _ in reasons(log)] == ["clocks_apart"] * (said is not None)
    assert said is None or said in reasons(log)[0][1]


def test_the_plan_says_how_well_clocks_have_to_be_known(log: Store) -> None:
    """validity.max_clock_error."""
    plan = Plan(validity=ValidityPlan(max_clock_error=0.02))
    two_hosts(log, comparisons=[compared(error_ns=300_000_000)], plan=plan)
    catch_up(log)
    assert reasons(log) == []


@given(
    true_ns=st.integers(-(10**12), 10**12),
    drift_ns=st.integers(-(10**6), 10**6),
    misses=st.lists(st.tuples(st.integers(0, 10**5), st.floats(-1, 1)), min_size=1, max_size=4),
)
def test_the_true_offset_is_within_the_bound_from_before_to_after(
    true_ns: int, drift_ns: int, misses: list[tuple[int, float]]
) -> None:
    """Whatever each comparison missed within its own bound, and however the clock drifted in between."""
    events = [
        compared(position, monotonic_offset_ns=truth + int(error_ns * miss), error_ns=error_ns)
        for position, truth in (("before", true_ns), ("after", true_ns + drift_ns))
        for error_ns, miss in misses
    ]
    placed = placements((("beta", "beta"), event) for event in events)["beta", "beta"]
    for truth in (true_ns, true_ns + drift_ns, true_ns + drift_ns // 2):
        assert abs(placed.offset_ns - truth) <= placed.error_ns + 1
