"""The rule for a request's times, in the log's words and for all requests at once: the two never part."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llem.projections import catch_up, open_readonly
from llem.projections.derive.columns import RequestColumns
from llem.projections.derive.request_laws import mistimed
from llem.projections.derive.stored import Stored
from llem.store import Store
from llem_events.events import Request
from llem_events.request_events import times_problem
from tests.world import at, request, supervisor, worker_events, write

FEW = st.integers(min_value=0, max_value=3)
TIMES = st.lists(st.integers(min_value=at(10.0), max_value=at(11.0)), max_size=3)
COUNTS = st.lists(st.none() | FEW, max_size=3)


@st.composite
def times(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of a request: often of one way alone, with numbers that fit often enough."""
    ways = draw(st.sampled_from(["tokens", "chunks", "counted", "reason", "none", "any"]))
    chunks = ways in ("chunks", "any")
    counted = draw(st.lists(FEW, min_size=1, max_size=3)) if ways == "counted" else None
    return {
        "output_tokens": draw(FEW),
        "token_times_ns": draw(TIMES) if ways in ("tokens", "any") else [],
        "chunk_times_ns": draw(TIMES) if chunks else [at(10.5)] * len(counted or []),
        "chunk_tokens": draw(COUNTS) if chunks else counted or [],
        "times_reason": draw(st.none() | st.sampled_from(["", "not streamed"]))
        if ways in ("reason", "any")
        else None,
    }


@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(fields=st.lists(times(), min_size=150, max_size=200))
def test_the_rule_for_all_requests_is_the_rule_of_the_log(
    empty_tables: Path, fields: list[dict[str, Any]]
) -> None:
    """Whatever times a request has, both find the same ones wrong, as they are decoded and after their way through the tables."""
    requests = [request(number, 10.0, **changed) for number, changed in enumerate(fields)]
    wrong = [times_problem(asked) is not None for asked in requests]
    assert mistimed(RequestColumns.of(requests)).tolist() == wrong
    assert mistimed(from_tables(requests, empty_tables)).tolist() == wrong


def from_tables(requests: list[Request], empty_tables: Path) -> RequestColumns:
    """The same after they were written and read."""
    with TemporaryDirectory() as folder:
        log = Store(Path(folder) / "store").create()
        shutil.copy(empty_tables, log.projections_path)
        supervisor(log)
        write(log, worker_events(requests=requests, closed_s=200.0), role="worker", index=0, checked=False)
        catch_up(log)
        with open_readonly(log) as connection:
            keys = "SELECT DISTINCT experiment_id, segment_id FROM requests"
            [(experiment_id, segment_id)] = connection.execute(keys).fetchall()
            return Stored(connection, experiment_id).requests(segment_id, 0, 2**31)
