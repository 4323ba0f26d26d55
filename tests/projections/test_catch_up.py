"""Catching up with a log that grows, is damaged, or was written by another llem."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from llem.errors import DamagedLogError, StoreError
from llem.projections import catch_up, open_tables, rebuild
from llem.projections.containment import LOG_TABLES
from llem.store import Store
from llem_events.events import Event, WarningRaised
from llem_events.recovery import recover
from tests.conftest import mostly_slow
from tests.projections.tables import hashes, one, result, rows
from tests.world import (
    EXPERIMENT,
    experiment,
    request,
    sampler_events,
    supervisor,
    worker_events,
    write,
)


class NoveltySeen(Event, frozen=True, kw_only=True):
    """An event of a type that no llem knows."""

    TYPE: ClassVar[str] = "novelty_seen"
    colour: str


class LaterWarning(WarningRaised, frozen=True, kw_only=True):
    """A later version of a known type."""

    VERSION: ClassVar[int] = 99


def grow(source: Path, target: Path, fraction: float) -> None:
    """Make the first part of a file appear, as if its writer were still at work."""
    whole = source.read_bytes()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.write_bytes(whole[: round(len(whole) * fraction)])


def damage(path: Path, *, at: float) -> None:
    """Flip one byte."""
    content = bytearray(path.read_bytes())
    content[round(len(content) * at)] ^= 0xFF
    path.write_bytes(content)


def segment(log: Store, role: str, experiment_id: str = EXPERIMENT) -> Path:
    """The only segment of a role."""
    (path,) = (log.log_path / experiment_id).glob(f"{role}*")
    return path


def from_scratch(log: Store, tmp_path: Path, *, salvage: bool = False) -> dict[str, str]:
    """Hashes of the tables that the same log gives in one go."""
    other = Store(tmp_path / "other")
    shutil.copytree(log.log_path, other.log_path)
    catch_up(other, salvage=salvage)
    return hashes(other)


def test_nothing_new_is_nothing_to_do(log: Store) -> None:
    """A second catch-up reads no block and writes nothing."""
    experiment(log)
    first = catch_up(log)
    assert (first.rebuilt, first.derived) == ("not built yet", [EXPERIMENT])
    before = log.projections_path.stat()
    second = catch_up(log)
    assert (second.rebuilt, second.blocks, second.derived) == (None, 0, ())
    assert log.projections_path.stat().st_mtime_ns == before.st_mtime_ns


def test_what_a_catch_up_read_is_what_was_new(caught_up: Store) -> None:
    """Its blocks and events, not those of before."""
    supervisor(caught_up, experiment_id="run-2")
    done = catch_up(caught_up)
    new = one(
        caught_up,
        "SELECT sum(blocks) AS blocks, sum(events) AS events FROM segments WHERE experiment_id = 'run-2'",
    )
    assert (done.blocks, done.events) == (new["blocks"], new["events"]) == (1, 2)


def test_an_empty_store_has_empty_tables(log: Store) -> None:
    """And no complaint."""
    assert catch_up(log).refused == []
    assert rows(log, "FROM experiment_results") == []


@pytest.mark.slow
def test_growing_in_pieces_gives_the_same_tables(log: Store, tmp_path: Path) -> None:
    """Each segment appears in seven pieces, cut anywhere; torn tails are read on when they are whole."""
    whole = Store(tmp_path / "whole")
    experiment(whole, processes=2)
    for step in range(1, 8):
        for path in sorted((whole.log_path / EXPERIMENT).iterdir()):
            target = log.log_path / EXPERIMENT / path.name
            grow(path, target, step / 7)
            if step == 7:
                shutil.copystat(path, target)
        catch_up(log)
    catch_up(whole)
    assert hashes(log) == hashes(whole)


@pytest.mark.slow
def test_a_second_experiment_leaves_the_first_alone(caught_up: Store, tmp_path: Path) -> None:
    """Only the new one is read and derived."""
    experiment(caught_up, experiment_id="run-2")
    assert catch_up(caught_up).derived == ["run-2"]
    assert hashes(caught_up) == from_scratch(caught_up, tmp_path)


def test_a_removed_experiment_leaves_the_tables(caught_up: Store, tmp_path: Path) -> None:
    """Its folder is gone, so are all its rows."""
    shutil.rmtree(caught_up.log_path / EXPERIMENT)
    catch_up(caught_up)
    assert hashes(caught_up) == from_scratch(caught_up, tmp_path)


@pytest.mark.usefixtures("tables")
def test_a_torn_tail_is_read_up_to_it(log: Store) -> None:
    """A crash in the middle of the last write costs that block only."""
    supervisor(log)
    path = write(log, worker_events(), role="worker", index=0, blocks=4, seal=False)
    path.write_bytes(path.read_bytes()[:-10])
    write(log, sampler_events(), role="sampler", index=0)
    assert catch_up(log).refused == []
    worker = one(log, "FROM segments WHERE role = 'worker'")
    assert (worker["verdict"], worker["blocks"]) == ("torn", 3)
    assert result(log)["status"] == "incomplete"


@pytest.mark.usefixtures("tables")
def test_a_file_torn_inside_its_header_holds_nothing(log: Store) -> None:
    """It is listed, and nothing else is harmed."""
    experiment(log)
    path = segment(log, "sampler")
    path.write_bytes(path.read_bytes()[:20])
    assert catch_up(log).refused == []
    assert one(log, "FROM segments WHERE file = ?", path.name)["verdict"] == "torn"
    assert result(log)["total_energy_j"] == 4_080.0  # the worker's edges have the counter


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_a_corrupt_segment_keeps_its_experiment_out(log: Store, tmp_path: Path) -> None:
    """Named by file, bytes and blocks; the other experiments are there; told again every time, from the tables."""
    experiment(log)
    experiment(log, experiment_id="run-2")
    damage(segment(log, "sampler"), at=0.5)
    for _ in range(2):
        (error,) = catch_up(log).refused
        assert isinstance(error, DamagedLogError)
        for part in (segment(log, "sampler").name, "bytes ", "from block ", "--salvage"):
            assert part in str(error)
    assert result(log)["status"] == "damaged"
    assert result(log)["total_tokens"] is None
    assert rows(log, f"FROM samples WHERE experiment_id = '{EXPERIMENT}'") == []
    assert result(log, "run-2")["total_energy_j"] == 4_080.0
    assert hashes(log) == from_scratch(log, tmp_path)


@pytest.mark.slow
def test_salvage_goes_on_and_says_what_is_missing(caught_up: Store, tmp_path: Path) -> None:
    """One of six blocks of samples is lost."""
    before = one(caught_up, "SELECT count(*) AS n FROM samples")["n"]
    damage(segment(caught_up, "sampler"), at=0.5)
    assert catch_up(caught_up).refused
    assert catch_up(caught_up, salvage=True).refused == []
    left = one(caught_up, "SELECT count(*) AS n FROM samples")["n"]
    assert before * 0.7 < left < before
    assert one(caught_up, "FROM experiments")["salvaged"] is True
    assert any("damaged bytes" in row["text"] for row in rows(caught_up, "FROM warnings"))
    assert hashes(caught_up) == from_scratch(caught_up, tmp_path, salvage=True)


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_a_healed_segment_brings_its_experiment_back(log: Store, tmp_path: Path) -> None:
    """The file is restored from a copy."""
    experiment(log)
    path = segment(log, "worker")
    good = path.read_bytes()
    damage(path, at=0.4)
    assert catch_up(log).refused
    path.write_bytes(good)
    assert catch_up(log).refused == []
    assert hashes(log) == from_scratch(log, tmp_path)


def test_damage_behind_the_checkpoint_is_noticed(caught_up: Store, tmp_path: Path) -> None:
    """A segment that was applied and then replaced by other bytes is read anew."""
    other = shutil.copy2(segment(caught_up, "worker"), tmp_path)
    damage(Path(other), at=0.6)
    Path(other).replace(segment(caught_up, "worker"))
    (error,) = catch_up(caught_up).refused
    assert isinstance(error, DamagedLogError)
    for table in LOG_TABLES:
        assert rows(caught_up, f"FROM {table}") == []


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_a_recovered_segment_stands_in_for_the_damaged_one(log: Store) -> None:
    """Both files are there; only the recovered one counts."""
    experiment(log)
    path = segment(log, "sampler")
    damage(path, at=0.5)
    assert catch_up(log).refused
    recover(path, path.with_name("sampler-0-recovered.events.zst"), limit_bytes=None)
    assert catch_up(log).refused == []
    left_out = one(log, "FROM segments WHERE file = ?", path.name)
    assert left_out["problem"] == "recovered as sampler-0-recovered.events.zst"
    assert result(log)["total_tokens"] == 120


@pytest.mark.usefixtures("tables")
def test_a_copy_of_a_segment_counts_once(log: Store) -> None:
    """Whoever collects logs of several hosts may copy one twice."""
    experiment(log)
    path = segment(log, "worker")
    shutil.copy2(path, path.with_name("worker-copy.events.zst"))
    catch_up(log)
    assert result(log)["total_tokens"] == 120
    assert one(log, "FROM segments WHERE file = 'worker-copy.events.zst'")["problem"].startswith("a copy of")


@pytest.mark.usefixtures("tables")
def test_a_segment_in_the_wrong_folder_is_refused(log: Store) -> None:
    """The header says which experiment it belongs to."""
    experiment(log)
    experiment(log, experiment_id="run-2")
    path = segment(log, "worker")
    shutil.copy2(path, log.log_path / "run-2" / "worker-x.events.zst")
    (error,) = catch_up(log).refused
    assert "the header names experiment 'run-1'" in str(error)


@pytest.mark.usefixtures("tables")
def test_a_newer_schema_is_refused_with_the_way_out(log: Store) -> None:
    """The store's other experiments stay usable."""
    experiment(log)
    experiment(log, experiment_id="run-2")
    segment(log, "worker").unlink()
    write(log, worker_events(), role="worker", index=0, schema_version=999)
    (error,) = catch_up(log).refused
    assert isinstance(error, StoreError)
    assert "store from a newer schema" in str(error)
    assert "upgrade llem" in str(error)
    assert result(log)["status"] == "newer"
    assert result(log, "run-2")["total_tokens"] == 120


@pytest.mark.parametrize("word", ["role", "finish reason"])
@pytest.mark.usefixtures("tables")
def test_a_word_of_a_later_llem_is_newer_and_no_damage(log: Store, word: str) -> None:
    """A role or a finish reason that is not known here keeps its experiment out with the way out; the others stay usable."""
    experiment(log)
    experiment(log, experiment_id="run-2")
    segment(log, "worker").unlink()
    later = [request(0, 1.0, finish_reason="content_filter" if word == "finish reason" else "length")]
    write(log, worker_events(requests=later), role="judge" if word == "role" else "worker", index=0)
    (error,) = catch_up(log).refused
    assert (type(error), error.exit_status) == (StoreError, 2)
    assert f"{word} " in str(error) and str(error).count("upgrade llem") == 1
    assert result(log)["status"] == "newer"
    assert result(log, "run-2")["total_tokens"] == 120


@pytest.mark.usefixtures("tables")
def test_unknown_events_are_kept_and_change_nothing(log: Store) -> None:
    """An unknown type, and a later version of a known one."""
    later = LaterWarning(code="x", text="y")
    novel = [(9.0, NoveltySeen(colour="blue")), (9.1, later)]
    experiment(log, worker=[*novel, *worker_events()])
    assert catch_up(log).refused == []
    kept = one(log, "FROM events WHERE type = 'novelty_seen'")
    assert kept["body"] == '{"colour":"blue"}'
    assert one(log, "FROM events WHERE version = 99")["type"] == "warning_raised"
    assert result(log)["total_energy_j"] == 4_080.0
    assert result(log)["valid"] is True


@pytest.mark.parametrize(
    "content", mostly_slow([b"not a database", b"", b"\0" * 20_000], every=3), ids=["text", "empty", "zeros"]
)
def test_an_unreadable_projection_is_built_anew(log: Store, content: bytes) -> None:
    """Only the log is the truth."""
    experiment(log)
    log.projections_path.write_bytes(content)
    assert catch_up(log).rebuilt
    assert result(log)["total_tokens"] == 120


@pytest.mark.parametrize(
    "change",
    mostly_slow(
        [
            "UPDATE projection SET log_digest = 'older'",
            "ALTER TABLE projection DROP COLUMN log_digest",
            "ALTER TABLE projection RENAME COLUMN derived_digest TO derivation_version",
        ],
        every=3,
    ),
)
def test_tables_of_another_version_are_built_anew(caught_up: Store, change: str) -> None:
    """The report says why, also where that version had other columns to say which one it is."""
    import duckdb

    with duckdb.connect(str(caught_up.projections_path)) as connection:
        connection.execute(change)
    assert catch_up(caught_up).rebuilt == "built by another version of llem"
    assert rebuild(caught_up, check=True).changed_tables == []


@pytest.mark.slow
def test_files_are_for_their_owner_only(log: Store) -> None:
    """Tables and lock have mode 0600, whatever the umask says."""
    experiment(log)
    before = os.umask(0)
    try:
        catch_up(log)
    finally:
        os.umask(before)
    for path in (log.projections_path, log.lock_path):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_projection_that_is_a_link_is_never_opened(log: Store, tmp_path: Path) -> None:
    """It may be anybody's."""
    experiment(log)
    log.projections_path.symlink_to(tmp_path / "elsewhere.duckdb")
    with pytest.raises(StoreError, match="a link"):
        catch_up(log)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_projection_of_another_user_is_never_opened(caught_up: Store) -> None:
    """A database file can run code in whoever opens it."""
    os.chown(caught_up.projections_path, 12_345, -1)
    with pytest.raises(StoreError, match="user 12345"):
        catch_up(caught_up)


def test_no_store_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Nothing is created."""
    for ask in (catch_up, rebuild, lambda store: open_tables(store, print)):
        with pytest.raises(StoreError, match="no store at"):
            ask(Store(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
