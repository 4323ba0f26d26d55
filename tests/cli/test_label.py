"""llem label: labels of an experiment that has ended, by a note in its log; nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from llem.projections import open_readonly, rebuild
from llem.store import Store
from llem_events.events import ExperimentLabelled
from tests.conftest import Run
from tests.world import ORIGIN_NS, experiment, write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One experiment with a label."""
    store = Store(tmp_path / "data").create()
    experiment(store, experiment_id="one", labels={"site": "lab", "team": "a"})
    return store


def rows(store: Store, columns: str) -> list[tuple[Any, ...]]:
    """Of experiment_results, made of the log."""
    rebuild(store)
    with open_readonly(store) as connection:
        return connection.execute(f"SELECT {columns} FROM experiment_results").fetchall()


@pytest.mark.slow
def test_labels_are_changed_and_nothing_else(llem: Run, store: Store) -> None:
    """A label is set, changed and removed; hash, times and figures stay; the segments that were there are not touched."""
    other = "* EXCLUDE (labels, result)"
    before, files = rows(store, other), {path: path.read_bytes() for path in store.segments("one")}
    for arguments in (["site=attic", "new=1"], ["--remove", "team"]):
        done = llem("label", "one", *arguments, "--store", store.path)
        assert (done.returncode, done.stdout) == (0, "")
    assert rows(store, other) == before
    assert all(path.read_bytes() == content for path, content in files.items())
    listed = json.loads(llem("runs", "--label", "site=attic", "--json", "--store", store.path).stdout)
    assert [run["labels"] for run in listed] == [{"site": "attic", "new": "1"}]


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_the_later_note_holds(order: int, store: Store) -> None:
    """By the wall clock of the note, whatever its file is called."""
    for name, hour in list(zip("ab", (0, 1)[::order], strict=True)):
        wall_ns = ORIGIN_NS + hour * 3600 * 10**9
        noted = ExperimentLabelled(labels={"site": f"at {hour}", "team": None})
        write(store, [(50.0, noted)], role="note", experiment_id="one", segment_id=name.encode() * 16, wall_ns=wall_ns)  # fmt: skip
    assert rows(store, "labels") == [({"site": "at 1"},)]


@pytest.mark.slow
def test_a_note_moves_no_time(store: Store) -> None:
    """Its clock may have drifted from that of the measurement by seconds, on the same boot: no window moves, and nothing is said of a stepped clock."""
    before = rows(store, "start_ns, end_ns, (SELECT list(text ORDER BY text) FROM warnings)")
    write(
        store,
        [(50.0, ExperimentLabelled(labels={"site": "attic"}))],
        role="note",
        experiment_id="one",
        monotonic_ns=ORIGIN_NS - 10**9,
        wall_ns=ORIGIN_NS,
    )
    assert rows(store, "start_ns, end_ns, (SELECT list(text ORDER BY text) FROM warnings)") == before


def test_what_is_no_label_is_refused(llem: Run, store: Store) -> None:
    """Nothing at all, a key with a dot, and an experiment that is not there; no note is written."""
    for arguments in (["one"], ["one", "a.b=c"], ["one", "site"], ["nobody", "a=b"]):
        done = llem("label", *arguments, "--store", store.path)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("llem: ")
    assert not any(name.startswith("note") for name in (path.name for path in store.segments("one")))


@pytest.mark.slow
def test_secrets_do_not_reach_the_log(llem: Run, store: Store) -> None:
    """As in every label."""
    llem("label", "one", "api_key=hunter2hunter2", "--store", store.path)
    ((labels,),) = rows(store, "labels")
    assert labels["api_key"] == "***"
