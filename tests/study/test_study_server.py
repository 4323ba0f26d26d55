"""Runs of a study under one server, as long as only what is asked of it changes."""

import json
from pathlib import Path

import pytest

from llem.measure.shared_server import StudyServer
from llem.plan import EnginePlan, LoadPlan, Plan, ServerPlan, WindowsPlan, WorkloadPlan
from tests.conftest import Run

FOUND = ServerPlan(kind="url", url="http://127.0.0.1:1")
SERVED = Plan(server=FOUND, load=LoadPlan(concurrency=2))
OTHER_LOAD = Plan(
    server=FOUND, load=LoadPlan(concurrency=4), workload=WorkloadPlan(seed=7), labels={"a": "b"}
)
OTHER_SERVER = Plan(server=FOUND, load=LoadPlan(concurrency=2), engine=EnginePlan(batch_size=9))
PLAN = """
[server]
kind = "simulated"
[meter]
name = "simulated"
[workload]
requests = 4
min_duration_s = 0.2
[windows]
baseline_s = 0.1
baseline_after_s = 0.0
[study]
repeats = 2
[study.vary]
"load.concurrency" = [1, 2]
"""


def test_a_server_is_shared_while_only_the_load_changes() -> None:
    """Prompts and labels too; with another engine it is another one, and a plan without a server has none."""
    with StudyServer() as server:
        first = server.under(SERVED)
        assert first is not None
        assert server.is_kept_for(OTHER_LOAD)
        assert server.under(OTHER_LOAD) is first
        assert not server.is_kept_for(OTHER_SERVER)
        assert not server.is_kept_for(None)
        assert server.under(OTHER_SERVER) is not first
        assert server.under(Plan()) is None


def test_a_server_whose_baseline_is_old_is_started_anew() -> None:
    """Its idle power was measured before it was started."""
    plan = Plan(server=FOUND, windows=WindowsPlan(baseline_max_age_s=1.0))
    with StudyServer() as server:
        first = server.under(plan)
        assert not server.is_kept_for(plan)
        assert server.under(plan) is not first


@pytest.mark.slow
def test_a_study_of_loads_starts_one_server(llem: Run, tmp_path: Path, store: Path) -> None:
    """Of four runs the first starts it, the last ends it, and all count."""
    (plan := tmp_path / "study.toml").write_text(PLAN)
    done = llem("study", plan)
    assert done.returncode == 0, done.stderr
    sql = "SELECT type, count(*) AS events, count(DISTINCT body ->> 'pid') AS servers FROM events WHERE type IN ('server_started', 'server_stopped') GROUP BY type ORDER BY type"
    assert "load.concurrency: 1 | 2" in done.stdout and "baseline_from" not in done.stdout
    started, stopped = json.loads(llem("query", sql, "-f", "json").stdout)
    assert (started["events"], started["servers"], stopped["events"]) == (4, 1, 1)
    (runs,) = json.loads(
        llem("query", "SELECT count(*) AS counted FROM study_runs WHERE counted", "-f", "json").stdout
    )
    assert runs["counted"] == 4
