"""The store: names that are safe everywhere, folders that are private."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.errors import StoreError
from llem.store import SEGMENT_SUFFIX, Store, check_id, new_experiment_id


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
    """A hundred new ids are all valid and all different."""
    ids = {check_id(new_experiment_id()) for _ in range(100)}
    assert len(ids) == 100


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


def test_no_store_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """Asking a store that is not there says where it was expected and what to run."""
    with pytest.raises(StoreError, match="llem measure"):
        Store(tmp_path).require()


def test_a_run_is_named_by_its_id_a_prefix_or_last(tmp_path: Path) -> None:
    """An id wins over longer ids that it begins; a prefix of several, or of none, is refused with a hint."""
    store = Store(tmp_path / "store").create()
    for name in ("20260101-a", "20260102-b", "20260102-bc"):
        store.create_experiment(name)
    assert store.resolve("@last") == "20260102-bc"
    assert store.resolve("20260101") == "20260101-a"
    assert store.resolve("20260102-b") == "20260102-b"
    for wrong in ("2026", "nothing", ""):
        with pytest.raises(StoreError, match="llem runs"):
            store.resolve(wrong)
