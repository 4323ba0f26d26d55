"""Several `llem measure` that know of each other measure one experiment."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LIMIT_S, LLEM, QUICK, SIMULATED, Run, events_of, segments

pytestmark = pytest.mark.slow
Done = subprocess.CompletedProcess[str]


def together(environment: dict[str, str], *ranks: list[object], **variables: str) -> list[Done]:
    """Run each list of arguments as one rank, side by side, to their ends."""
    started = [
        subprocess.Popen(
            [LLEM, "measure", *map(str, arguments)],
            env={**environment, **variables, "LLEM_RANK": str(rank), "LLEM_SIZE": str(len(ranks))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, arguments in enumerate(ranks)
    ]
    ends = [process.communicate(timeout=LIMIT_S) for process in started]
    return [Done(process.args, process.returncode, *end) for process, end in zip(started, ends, strict=True)]


@pytest.fixture
def meeting() -> dict[str, str]:
    """Where ranks of this test meet."""
    return {"LLEM_RENDEZVOUS": "127.0.0.1", "LLEM_JOB": f"test-{os.getpid()}-{os.urandom(4).hex()}"}


def test_two_ranks_measure_one_experiment(
    environment: dict[str, str], meeting: dict[str, str], store: Path, llem: Run
) -> None:
    """One folder, two processes of consecutive indices, one result, printed by rank 0 alone."""
    first, second = together(environment, *[[*SIMULATED, *QUICK]] * 2, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert len(list((store / "log").iterdir())) == 1
    assert (second.stdout, second.stderr) == ("", "")
    assert "processes" in first.stdout
    assert len(segments(store, "supervisor")) == len(segments(store, "rank")) == 1
    started = events_of(store, "worker", "process_started")
    assert sorted(event.get("process_index", 0) for event in started) == [0, 1]
    told = llem("query", "FROM experiments SELECT status, expected_processes", "-f", "jsonl").stdout
    assert '"completed"' in told and "2" in told


def test_ranks_of_two_plans_are_refused_before_anything_is_written(
    environment: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """Each ends with status 2, and rank 0 says why."""
    first, second = together(
        environment, [*SIMULATED, *QUICK], [*SIMULATED, *QUICK, "--workers", 2], **meeting
    )
    assert (first.returncode, second.returncode) == (2, 2)
    assert "another plan or command" in first.stderr
    assert not segments(store)


def test_a_missing_rank_is_named(environment: dict[str, str], meeting: dict[str, str], store: Path) -> None:
    """Rank 0 waits so long as it was told, then says who did not come."""
    variables = {**meeting, "LLEM_RANK": "0", "LLEM_SIZE": "3", "LLEM_RENDEZVOUS_S": "0.5"}
    done = subprocess.run(
        [LLEM, "measure", *SIMULATED, *QUICK],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "ranks 1-2 did not come within 0.5 s" in done.stderr
    assert not segments(store)
