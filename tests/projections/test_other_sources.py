"""Experiments that no engine of ours measured: results of another program, and wrapped programs."""

import hashlib

import msgspec
import pytest

from llem.projections import catch_up, rebuild
from llem.results import ExperimentResult
from llem.store import Store
from llem_events.events import (
    ExperimentCompleted,
    ExperimentStarted,
    ProcessCompleted,
    ProcessStarted,
    ResultImported,
)
from tests.projections.tables import one, result, rows
from tests.world import (
    EXPERIMENT,
    device,
    experiment,
    worker_events,
    write,
)

pytestmark = pytest.mark.usefixtures("tables")


def original(log: Store) -> bytes:
    """A result as another program would have left it, made of one of ours."""
    other = Store(log.path.with_name("other")).create()
    experiment(other, processes=2)
    catch_up(other)
    text = result(other)["result"]
    return msgspec.json.encode(msgspec.json.decode(text) | {"experiment_id": "their-name"})


@pytest.mark.slow
def test_an_imported_result_stands_beside_the_measured_ones(log: Store) -> None:
    """Its figures are those of the file, after a rebuild too; its former name is a label."""
    content = original(log)
    imported = ResultImported(
        format="llenergymeasure-2.0",
        file_name="result.json",
        file_sha256=hashlib.sha256(content).hexdigest(),
        original=content,
    )
    started = ExperimentStarted(
        experiment_id=EXPERIMENT,
        plan={},
        measurement_config_hash="theirs",
        expected_processes=2,
        llem_version="0",
    )
    ended = ExperimentCompleted(processes_completed=2, processes_failed=0)
    write(log, [(0.0, started), (0.0, imported), (0.0, ended)], role="import")
    assert catch_up(log).refused == []
    rebuild(log)
    found, theirs = result(log), msgspec.json.decode(content, type=ExperimentResult)
    assert found["status"] == "completed"
    assert found["labels"]["imported_id"] == "their-name"
    for name in ("total_energy_j", "total_tokens", "total_flops", "tokens_per_second", "duration_sec"):
        assert found[name] == getattr(theirs, name), name
    assert len(rows(log, "FROM raw_process_results")) == 2


def test_a_wrapped_program_has_energy_and_no_tokens(log: Store) -> None:
    """NULL, not 0, for every figure of tokens and requests."""
    events = [event for event in worker_events(requests=[]) if event[1].TYPE.startswith("window")]
    program = ProcessStarted(process_index=0, devices=[device()], engine="command")
    ended = ProcessCompleted(process_index=0, exit_status=0)
    experiment(log, worker=[(0.5, program), *events, (31.0, ended)])
    catch_up(log)
    found = result(log)
    assert (found["status"], found["engine"], found["total_energy_j"]) == ("completed", "command", 4_080.0)
    for name in ("total_tokens", "output_tokens", "requests", "tokens_per_second", "avg_tokens_per_second"):
        assert found[name] is None, name
    for name in ("avg_energy_per_token_j", "tokens_per_joule", "total_flops", "ttft_mean_ms"):
        assert found[name] is None, name
    assert found["duration_sec"] == pytest.approx(20.0)
    raw = one(log, "FROM raw_process_results")
    assert (raw["total_tokens"], raw["tokens_per_second"], raw["requests"]) == (None, None, None)
