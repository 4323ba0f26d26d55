"""Many new experiments at once: the same tables as one segment at a time, and one that does not fit hurts no other."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from llem.projections import bulk, catch_up, cells, database, ingest, projector, rebuild
from llem.projections.checkpoint import SegmentFile, scan
from llem.projections.containment import MisfitError
from llem.store import Store
from tests.conftest import mostly_slow
from tests.projections.tables import hashes, rows
from tests.world import experiment, sampler_events, supervisor, worker_events, write


def three(log: Store) -> None:
    """Three whole experiments."""
    for number in range(3):
        experiment(log, processes=2, experiment_id=f"run-{number}")


@pytest.mark.slow
def test_at_once_and_one_by_one_give_the_same_tables(
    caught_up: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit of every column, whichever way an experiment went, and however little of it was held at a time."""
    at_once = hashes(caught_up)
    monkeypatch.setattr(bulk, "GROUP_BYTES", 0)
    for limit, most in {"ROW_GROUP": 4, "PIECE_ROWS": 20, "_STATEMENT_BATCHES": 30}.items():
        monkeypatch.setattr(ingest, limit, most)
    rebuild(caught_up)
    assert hashes(caught_up) == at_once


def test_segments_that_were_read_at_once_are_part_of_their_result(usual: Store) -> None:
    """All of their blocks, by a clock that is told: nothing is derived again."""
    segments = rows(usual, "FROM segments")
    assert [segment["derived_blocks"] for segment in segments] == [segment["blocks"] for segment in segments]
    assert all(segment["clock_offset_ns"] is not None for segment in segments) and len(segments) == 3
    assert catch_up(usual).derived == ()


def test_so_many_at_once_as_are_small_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their bytes, of which those of a sampler weigh less, and by their number; a large one, and one without files, is left out."""
    for limit, most in {"GROUP_BYTES": 60, "CHUNK_BYTES": 100, "CHUNK_EXPERIMENTS": 3}.items():
        monkeypatch.setattr(bulk, limit, most)
    sizes = {"a": 50, "b": 50, "c": 1, "d": 1, "e": 1, "f": 60, "large": 61, "g": 41}
    small = {name: {"sampler-0": sized(name, size)} for name, size in sizes.items()}
    texts = {"text": {"worker-0": sized("text", 7)}, "much text": {"worker-0": sized("much text", 8)}}
    packs = bulk.chunks({**small, **texts, "empty": {}})
    assert [list(pack) for pack in packs] == [["a", "b"], ["c", "d", "e"], ["f"], ["g", "text"]]


def sized(experiment_id: str, file_bytes: int) -> SegmentFile:
    """A file of so many bytes."""
    return SegmentFile(
        experiment_id=experiment_id, path=Path("segment"), file_bytes=file_bytes, modified_ns=0
    )


def test_what_is_read_at_once_is_plain(log: Store) -> None:
    """Sealed originals, each once; a file that grows, a copy, or more than is read whole, goes the slow way."""
    path = supervisor(log)
    write(log, worker_events()[:2], role="worker", index=0)
    files = scan(log)["run-1"]
    found = bulk._read("run-1", files)
    assert found is not None and [each.identity.process_index for each in found.segments] == [None, 0]
    assert found.facts().experiment_id == "run-1" and len(found.segments[0].events) == 2
    copy = path.with_name("copy.events.zst")
    copy.write_bytes(path.read_bytes())
    assert bulk._read("run-1", scan(log)["run-1"]) is None
    copy.write_bytes(b"no segment")
    assert bulk._read("run-1", scan(log)["run-1"]) is None
    copy.unlink()
    write(log, worker_events()[:1], role="worker", index=1, seal=False)
    assert bulk._read("run-1", scan(log)["run-1"]) is None


@pytest.mark.parametrize("chunk", mostly_slow([2, 1, 64], every=3))
@pytest.mark.usefixtures("tables")
def test_one_that_does_not_fit_hurts_no_other(
    log: Store, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """However many share its transaction, and wherever among them it stands."""
    monkeypatch.setattr(bulk, "CHUNK_EXPERIMENTS", chunk)
    three(log)
    experiment(log, experiment_id="run-1b", sampler=sampler_events(temperature_c=lambda _: 40_000))
    assert len(catch_up(log).refused) == 1
    found = rows(log, "SELECT experiment_id, status FROM experiments ORDER BY ALL")
    assert [(row["experiment_id"], row["status"]) for row in found] == [
        ("run-0", "completed"),
        ("run-1", "completed"),
        ("run-1b", "damaged"),
        ("run-2", "completed"),
    ]


@pytest.mark.usefixtures("tables")
def test_what_nobody_foresaw_hurts_no_other_experiment(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told every time, from the tables, until its log can be read."""
    three(log)
    apply = projector._apply_segments

    def odd(tables: database.Tables, files: list[SegmentFile], *rest: Any, **options: Any) -> None:
        if files[0].experiment_id == "run-1":
            raise RuntimeError("odd")
        apply(tables, files, *rest, **options)

    monkeypatch.setattr(bulk, "GROUP_BYTES", 0)
    monkeypatch.setattr(projector, "_apply_segments", odd)
    for _ in range(2):
        refused = list(map(str, catch_up(log).refused))
        assert refused and all("run-1" in told and "odd" in told for told in refused)
        found = rows(log, "SELECT experiment_id, status FROM experiments ORDER BY ALL")
        assert [row["status"] for row in found] == ["completed", "damaged", "completed"]


@pytest.mark.usefixtures("tables")
def test_a_full_disk_is_no_damage_of_an_experiment(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the log's ends the catch-up, and no experiment is called damaged."""
    three(log)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bulk.Bulk, "_commit", full)
    with pytest.raises(OSError, match="No space"):
        catch_up(log)


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_a_misfit_goes_the_slow_way(log: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that cannot be derived at once is still in the tables."""
    three(log)

    def misfit(*_: Any) -> None:
        raise MisfitError("odd")

    monkeypatch.setattr(bulk.Bulk, "_commit", misfit)
    assert catch_up(log).derived == ["run-0", "run-1", "run-2"]
    assert len(rows(log, "FROM experiment_results WHERE total_tokens IS NOT NULL")) == 3


@pytest.mark.parametrize(
    ("kind", "values", "stored"),
    [
        ("BIGINT", [1, None, -(2**63)], [1, None, -(2**63)]),
        ("BIGINT", ["8", None], [8, None]),
        ("SMALLINT", [True, None], [1, None]),
        ("BOOLEAN", [True, None, False], [True, None, False]),
        ("DOUBLE", [1, 2.5, None, float("nan"), float("inf")], [1.0, 2.5, None, None, None]),
        ("VARCHAR", ["a", None, "", "\0ü", 7, ["x"]], ["a", None, "", "\0ü", "7", '["x"]']),
        ("BIGINT[]", [[1, None], [], None], [[1, None], [], None]),
        ("VARCHAR[]", [["a"], None], [["a"], None]),
        ("JSON", [{"a": 1.0}, None, "t"], ['{"a":1.0}', None, '"t"']),
        ("MAP(VARCHAR, VARCHAR)", [{"a": "b"}, None], [{"a": "b"}, None]),
    ],
)
def test_every_kind_of_cell_comes_back(kind: str, values: list[Any], stored: list[Any]) -> None:
    """As it is where it is plain, by way of JSON where it is not; what is no number, or infinite, is NULL."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE kept (place BIGINT, value {kind})")
        numbered = [{"place": place, "value": value} for place, value in enumerate(values)]
        cells.insert(connection, "kept", [cells.batch(numbered, {"place": "BIGINT", "value": kind})])
        found = connection.execute("SELECT value FROM kept ORDER BY place").fetchall()
    assert [value for (value,) in found] == stored


@pytest.mark.parametrize(("kind", "value"), [("BIGINT", 2**63), ("SMALLINT", 40_000), ("BIGINT", "many")])
def test_what_no_column_holds_is_refused(kind: str, value: Any) -> None:
    """By DuckDB, which says what it is."""
    with duckdb.connect() as connection, pytest.raises(duckdb.Error):
        connection.execute(f"CREATE TABLE kept (value {kind})")
        cells.insert(connection, "kept", [cells.batch([{"value": value}], {"value": kind})])


def test_a_limit_of_the_cache_ends_when_it_is_lifted() -> None:
    """What comes afterwards may take more memory than the emptied cache had."""
    connection = database.in_memory()
    connection.execute("SET temp_directory = ''")
    database.release_cache(connection)
    connection.execute(
        "CREATE TABLE many AS SELECT range AS number, hash(range) AS other FROM range(5_000_000)"
    )
    assert connection.execute("SELECT count(*) FROM many").fetchall() == [(5_000_000,)]
