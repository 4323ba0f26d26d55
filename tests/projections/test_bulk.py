"""Small new experiments are taken at once: none that is plain goes the slow way, which would hide what is wrong with this one."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest

from llem.projections import bulk, catch_up
from llem.projections.checkpoint import SegmentFile, scan
from llem.projections.database import Tables, create_tables, in_memory
from llem.store import Store
from tests.projections.fake_log import experiment
from tests.projections.tables import rows

NAMES = ["run-1", "run-2", "run-3"]


@pytest.fixture
def filled(log: Store) -> Store:
    """Three experiments, one of two processes."""
    for number, name in enumerate(NAMES):
        experiment(log, experiment_id=name, processes=1 + number % 2)
    return log


def taken_at_once(store: Store) -> tuple[list[str], duckdb.DuckDBPyConnection]:
    """The experiments that a Bulk says it took, and the tables that it filled."""
    connection = in_memory()
    create_tables(connection)
    with bulk.bulk(Tables(connection)) as new_ones:
        return [name for chunk in bulk.chunks(scan(store)) for name in new_ones.apply(chunk)], connection


def test_plain_experiments_are_all_taken(filled: Store) -> None:
    """None goes the slow way, and every table has the rows that a catch-up has."""
    taken, connection = taken_at_once(filled)
    assert sorted(taken) == NAMES
    catch_up(filled)
    for table in ("samples", "requests", "experiment_results", "raw_process_results", "windows", "devices"):
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        assert found == [(len(rows(filled, f"FROM {table}")),)], table
        assert found != [(0,)], table


def test_an_experiment_that_does_not_fit_leaves_the_others(filled: Store) -> None:
    """A file with a changed byte keeps its own experiment out of the bulk, and no other."""
    damaged = filled.segments("run-2")[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    taken, connection = taken_at_once(filled)
    assert sorted(taken) == ["run-1", "run-3"]
    found = connection.execute("SELECT DISTINCT experiment_id FROM segments ORDER BY ALL").fetchall()
    assert found == [("run-1",), ("run-3",)]


def files(**weights: int) -> dict[str, Mapping[str, SegmentFile]]:
    """Experiments of one sampler's file of so many bytes."""
    return {
        name: {
            "sampler.events.zst": SegmentFile(
                experiment_id=name, path=Path("sampler.events.zst"), file_bytes=weight, modified_ns=0
            )
        }
        for name, weight in weights.items()
    }


def chunks_of(experiments: Mapping[str, Mapping[str, SegmentFile]]) -> list[list[str]]:
    return [list(chunk) for chunk in bulk.chunks(experiments)]


def test_a_chunk_has_at_most_its_bytes_and_experiments() -> None:
    """Exactly the limit goes in; one byte or one experiment more begins a new chunk; a large one is in none."""
    half = bulk.CHUNK_BYTES // 2
    assert chunks_of(files(a=half, b=half, c=half + 1, d=half)) == [["a", "b"], ["c"], ["d"]]
    assert chunks_of(files(a=1, b=bulk.CHUNK_BYTES + 1, c=bulk.CHUNK_BYTES)) == [["a"], ["c"]]
    many = files(**{f"e{number}": 1 for number in range(bulk.CHUNK_EXPERIMENTS + 1)})
    assert [len(chunk) for chunk in chunks_of(many)] == [bulk.CHUNK_EXPERIMENTS, 1]
    assert chunks_of({"none": {}}) == chunks_of({}) == []


def test_a_byte_of_text_weighs_as_many_of_samples() -> None:
    """A worker's file of an eighth of a chunk fills it."""
    (only,) = files(a=bulk.CHUNK_BYTES // bulk.TEXT_FACTOR).values()
    worker = {"worker-0.events.zst": only["sampler.events.zst"]}
    assert chunks_of({"a": worker, **files(b=1)}) == [["a"], ["b"]]
