"""The store: names that are safe everywhere, folders that are private."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.errors import StoreError
from llem.store import SEGMENT_SUFFIX, Store, check_id, new_experiment_id
from llem_events import SegmentWriter
from tests.conftest import read_as_anybody
from tests.log.segments import segment_header


def start(store: Store, experiment_id: str, *, wall_ns: int) -> None:
    """A folder with the segment of a supervisor that began at `wall_ns`."""
    header = segment_header(experiment_id=experiment_id, wall_ns=wall_ns, role="supervisor")
    path = store.create_experiment(experiment_id) / f"supervisor{SEGMENT_SUFFIX}"
    SegmentWriter(path, header, sync="close").close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "-rf", "A", "a\0", "con", "nul.txt", "a" * 65, "ä", "a b"]
)
def test_names_that_are_not_ids_are_refused(name: str) -> None:
    """Nothing that could leave the store, be an option, or be no folder elsewhere is an id."""
    with pytest.raises(StoreError):
        check_id(name)


@given(st.text())
def test_an_id_stays_in_the_store(name: str) -> None:
    """Whatever passes as an id names a folder directly in the log."""
    try:
        check_id(name)
    except StoreError:
        return
    log = Path("/store/log")
    assert (log / name).parent == log and (log / name).name == name


def test_new_ids_are_ids_and_differ() -> None:
    """A hundred new ids are all different: date, time and twelve hexadecimal digits."""
    ids = {check_id(new_experiment_id()) for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{12}", each) for each in ids)


def test_new_ids_sort_by_time() -> None:
    """Those of two runs that begin in one second, too."""
    ids = []
    for _ in range(20):
        ids.append(new_experiment_id())
        time.sleep(0.001)
    assert ids == sorted(ids)


def test_links_and_strange_folders_are_not_experiments(tmp_path: Path) -> None:
    """Links are never followed, and other folders in the log are left alone."""
    store = Store(tmp_path / "store").create()
    folder = store.create_experiment("one")
    (folder / f"worker{SEGMENT_SUFFIX}").write_bytes(b"")
    (folder / f"link{SEGMENT_SUFFIX}").symlink_to(folder / f"worker{SEGMENT_SUFFIX}")
    (store.log_path / "two").symlink_to(folder)
    (store.log_path / "Not An Id").mkdir()
    assert store.experiment_ids() == ["one"]
    assert [path.name for path in store.segments("one")] == [f"worker{SEGMENT_SUFFIX}"]


def test_what_is_listed_can_be_resolved(tmp_path: Path) -> None:
    """A folder whose name is no id somewhere is left out everywhere, and named; the others are answered."""
    store = Store(tmp_path / "store").create()
    start(store, "one", wall_ns=1)
    for name in ("con", "aux", "nul.txt", "com1", "Not An Id", ".new-abc"):
        (store.log_path / name).mkdir()
    assert store.experiment_ids() == ["one"]
    assert store.strange_folders() == ["Not An Id", "aux", "com1", "con", "nul.txt"]
    assert [store.resolve(name) for name in store.experiment_ids()] == ["one"]
    assert store.segments("one")


CLOSED = """
import sys
import time
from pathlib import Path
from llem.store import Store
store = Store(Path(sys.argv[1]))
print(store.experiment_ids(), store.segments("one"), store.resolve("@last"), store.unreadable("two"))
print(store.unreadable("one"))
"""


def test_a_folder_of_another_user_does_not_hide_the_others(tmp_path: Path) -> None:
    """A folder that this user may not list is named with the command that mends it; all others are listed and resolved."""
    store = Store(tmp_path / "store").create()
    for name in ("one", "two"):
        start(store, name, wall_ns=1)
    closed = store.log_path / "one"
    closed.chmod(0)
    ran = subprocess.run(
        [sys.executable, "-c", CLOSED, store.path],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=read_as_anybody,
    )
    answered, reason = ran.stdout.splitlines()
    assert answered == "['one', 'two'] [] two None"
    assert f"sudo chown -R {os.getuid()} {closed}" in reason


def test_no_store_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """Asking a store that is not there says where it was expected and what to run."""
    with pytest.raises(StoreError, match="llem measure"):
        Store(tmp_path).require()


def test_a_run_is_named_by_its_id_a_prefix_or_last(tmp_path: Path) -> None:
    """An id wins over longer ids that it begins; @last is the latest start by the header's clock, whatever the names; a prefix of several, or of none, is refused with a hint."""
    store = Store(tmp_path / "store").create()
    with pytest.raises(StoreError, match="no experiment"):
        store.resolve("@last")
    for name, wall_ns in (("20260101-a", 30), ("20260102-b", 20), ("20260102-bc", 10)):
        start(store, name, wall_ns=wall_ns)
    store.create_experiment("20260103-empty")
    (store.create_experiment("20260104-torn") / f"supervisor{SEGMENT_SUFFIX}").write_bytes(b"LLEH")
    assert store.resolve("@last") == "20260101-a"
    assert store.resolve("20260101") == "20260101-a"
    assert store.resolve("20260102-b") == "20260102-b"
    for wrong in ("2026", "nothing", ""):
        with pytest.raises(StoreError, match="llem runs"):
            store.resolve(wrong)
