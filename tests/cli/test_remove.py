"""llem rm: what is removed is gone from the log and from the tables, and nothing else is."""

import json
import os
from pathlib import Path

import pytest

from llem.plan import Plan
from llem.store import Store
from llem_events.events import ExperimentStarted, StudyPlace
from tests.cli.terminal import Terminal, on_a_terminal
from tests.conftest import Run
from tests.forked import ForkedLlem
from tests.world import experiment, write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two whole experiments and a run of a study that was cut off."""
    store = Store(tmp_path / "data").create()
    experiment(store, experiment_id="one", plan=Plan(name="base"))
    experiment(store, experiment_id="two")
    started = ExperimentStarted(
        experiment_id="three",
        plan={},
        measurement_config_hash="hash",
        expected_processes=1,
        llem_version="0",
        study=StudyPlace(study_id="sizes", cell_index=0, cell={}, block=0, position=0),
    )
    write(store, [(0.0, started)], role="supervisor", experiment_id="three")
    return store


def ids(llem: Run, store: Store) -> list[str]:
    """What the tables have."""
    return sorted(
        row["experiment_id"] for row in json.loads(llem("runs", "--json", "--store", store.path).stdout)
    )


@pytest.mark.slow
def test_a_run_is_removed_for_good(llem: Run, store: Store) -> None:
    """By name, without being asked: its folder goes, nothing is left of it, and the tables follow."""
    assert ids(llem, store) == ["one", "three", "two"]
    done = llem("rm", "base", "--yes", "--store", store.path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "llem: one, base, completed" in done.stderr and "llem: removed 1 experiment\n" in done.stderr
    assert sorted(folder.name for folder in store.log_path.iterdir()) == ["three", "two"]
    assert ids(llem, store) == ["three", "two"]
    counted = llem("query", "SELECT count(*) AS n FROM samples WHERE experiment_id = 'one'", "-f", "csv", "--store", store.path)  # fmt: skip
    assert counted.stdout == "n\n0\n"


def test_what_stays_sealed_is_named(llem: Run, store: Store) -> None:
    """With the command that removes it too; of a run that is not sealed nothing is said."""
    (store.path / "sealed/table=samples/experiment_id=one").mkdir(parents=True)
    done = llem("rm", "one", "two", "--yes", "--store", store.path)
    told = [line for line in done.stderr.splitlines() if "Parquet" in line]
    assert told == [
        f"llem: one stays as Parquet; remove that too: rm -r {store.path}/sealed/*/experiment_id=one"
    ]


def test_where_nobody_can_be_asked_nothing_is_removed(llem: Run, store: Store) -> None:
    """Without a terminal it wants --yes; a run of a study is told, and an unknown one is an error before anything is done."""
    done = llem("rm", "three", "two", "--store", store.path)
    assert done.returncode == 2
    assert "a run of study sizes" in done.stderr and "say so with --yes" in done.stderr
    assert llem("rm", "two", "nobody", "--yes", "--store", store.path).returncode == 2
    assert store.experiment_ids() == ["one", "three", "two"]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "left", "status"), [("n", 3, 1), ("", 3, 1), ("y", 2, 0)])
def test_a_person_is_asked(answer: str, left: int, status: int, store: Store, forked: ForkedLlem) -> None:
    """Only yes removes."""
    given: list[int] = []

    def person(terminal: Terminal, controller: int) -> None:
        if not given and b"[y/N]" in terminal.written:
            given.append(os.write(controller, f"{answer}\n".encode()))

    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    arguments = ["rm", "two", "--store", store.path]
    found = on_a_terminal(arguments, environment=environment, forked=forked, while_running=person)
    assert (found[1], len(store.experiment_ids())) == (status, left)
