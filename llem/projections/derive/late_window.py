"""Figures of a window chosen after the fact, from samples and requests, without measuring again."""

import math
from collections.abc import Sequence

import duckdb
import msgspec

from llem.errors import DamagedLogError, LlemError, QueryError, StoreError
from llem.projections.derive.experiment import Chosen, Derived, derive_experiment
from llem.projections.derive.reading import read_experiments
from llem.projections.derive.spans import clipped
from llem.results import ExperimentResult
from llem.results.experiment import Methodology
from llem.units import NS_PER_S

Seconds = tuple[float, float]


def results_for(
    connection: duckdb.DuckDBPyConnection,
    experiment_id: str,
    *,
    methodology: Methodology = "total",
    window_s: Seconds | None = None,
) -> ExperimentResult:
    """The result of an experiment over all of its measurement, its steady state, or seconds from its start.

    A window is cut to the measurement windows of each process. Raises QueryError where nothing was measured in it.
    """
    if (methodology == "windowed") != (window_s is not None):
        raise QueryError("a window goes with methodology windowed", found=f"{methodology}, window {window_s}")
    if window_s is not None and not all(math.isfinite(edge_s * NS_PER_S) for edge_s in window_s):
        raise QueryError(
            f"window of {experiment_id}",
            found=f"{window_s[0]:g} to {window_s[1]:g} s",
            expected="seconds that have an end",
        )
    if methodology == "total":
        return _stored(connection, experiment_id)
    ((facts, source),) = read_experiments(connection, [experiment_id])
    whole = derive_experiment(source, facts)
    window = _window(connection, whole, window_s)
    derived = derive_experiment(source, facts, chosen=_chosen(whole, window), methodology=methodology)
    if derived.result is None:
        raise QueryError(
            f"window of {experiment_id}",
            found=f"{window[0]:g} to {window[1]:g} s",
            expected=f"a part of 0 to {(whole.end_ns - whole.start_ns) / NS_PER_S:.1f} s",
        )
    return msgspec.structs.replace(derived.result, steady_state_window=window)


def _stored(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> ExperimentResult:
    rows = connection.execute(
        "SELECT result FROM experiment_results WHERE experiment_id = ?", [experiment_id]
    ).fetchall()
    result = rows[0][0] if rows else None
    if result is None:
        raise _no_result(connection, experiment_id)
    return msgspec.json.decode(result, type=ExperimentResult)


def _window(connection: duckdb.DuckDBPyConnection, whole: Derived, window_s: Seconds | None) -> Seconds:
    if not whole.measured:
        raise _no_result(connection, whole.facts.experiment_id)
    window = window_s or whole.steady.span_sec
    if window is None:
        raise QueryError(
            f"steady state of {whole.facts.experiment_id}",
            found=whole.steady.reason,
            hint="name a window, or use methodology total",
        )
    return window


def _chosen(whole: Derived, window: Seconds) -> Chosen:
    """The window on the monotonic clock of every process, cut to its measurement windows."""
    spans: dict[str, Sequence[tuple[int, int]]] = {}
    for measured in whole.measured:
        origin_ns = whole.start_ns - whole.clocks.wall_ns(measured.process.segment, 0)
        edges = (origin_ns + round(window[0] * NS_PER_S), origin_ns + round(window[1] * NS_PER_S))
        spans[measured.process.segment.segment_id or ""] = clipped(measured.spans, edges)
    return spans


def _no_result(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> LlemError:
    """Why there is nothing to show: an error with the exit status of its kind."""
    rows = connection.execute(
        "SELECT status, problem FROM experiments WHERE experiment_id = ?", [experiment_id]
    ).fetchall()
    what = f"experiment {experiment_id} has no result"
    match rows:
        case []:
            return QueryError(f"no experiment {experiment_id}", hint="`llem runs` lists them")
        case [("damaged", problem)]:
            return DamagedLogError(what, found=f"damaged: {problem}", hint="`llem log verify` tells more")
        case [("newer", problem)]:
            return StoreError(what, found=problem, hint="upgrade llem")
        case [(status, problem)]:
            return QueryError(what, found=f"status {status}" + (f": {problem}" if problem else ""))
    raise AssertionError(rows)
