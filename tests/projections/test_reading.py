"""An experiment is the same whether its rows were read whole, with those of others, or piece by piece."""

import duckdb
import pytest

from llem.projections import catch_up, open_readonly, rebuild, sample_pieces
from llem.projections.derive import reading
from llem.projections.derive.experiment import derive_experiment
from llem.projections.derive.history import load_facts
from llem.projections.derive.rows import derived_rows
from llem.projections.derive.source import Held, Stored
from llem.store import Store
from tests.world import experiment, sampler_events, supervisor, worker_events, write

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def three(log: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Experiments of two processes, of one without a sampler, and of none, with the sums of large ones."""
    experiment(log, processes=2, experiment_id="run-1")
    supervisor(log, experiment_id="run-2")
    write(log, worker_events(), role="worker", index=0, experiment_id="run-2")
    supervisor(log, experiment_id="run-3")
    with monkeypatch.context() as patched:
        patched.setattr(sample_pieces, "SMALL_ROWS", 0)
        catch_up(log)
    return log


def test_rows_read_whole_give_what_pieces_give(three: Store) -> None:
    """Of each of several that are read at once."""
    with open_readonly(three) as connection:
        found = list(reading.read_experiments(connection, ["run-1", "run-2", "run-3"]))
        assert [facts.experiment_id for facts, _ in found] == ["run-1", "run-2", "run-3"]
        for facts, held in found:
            stored = Stored(connection, facts.experiment_id)
            assert isinstance(held, Held)
            assert sorted(held.sampled()) == sorted(stored.sampled())
            assert of_source(connection, held, facts.experiment_id) == of_source(
                connection, stored, facts.experiment_id
            )


def of_source(connection: duckdb.DuckDBPyConnection, source: Held | Stored, experiment_id: str) -> object:
    """All derived rows."""
    derived = derive_experiment(source, load_facts(connection, experiment_id))
    return {table: list(rows) for table, rows in derived_rows(source, derived).items()}


@pytest.mark.slow
def test_a_large_experiment_is_read_in_pieces(log: Store) -> None:
    """A small one beside it is not."""
    experiment(log, experiment_id="run-1")
    supervisor(log, experiment_id="run-2")
    write(log, worker_events(), role="worker", index=0, experiment_id="run-2")
    write(log, sampler_events(hz=2_000.0), role="sampler", index=0, experiment_id="run-2")
    catch_up(log)
    with open_readonly(log) as connection:
        found = reading.read_experiments(connection, ["run-1", "run-2"])
        assert [type(source) for _, source in found] == [Held, Stored]


@pytest.mark.slow
def test_rows_that_stand_between_others_are_found(three: Store) -> None:
    """A file that grows while others are taken has rows in more than one place."""
    grown = write(three, sampler_events(), role="sampler", index=0, experiment_id="run-2")
    catch_up(three)
    experiment(three, experiment_id="run-4")
    catch_up(three)
    assert grown.exists()
    with open_readonly(three) as connection:
        stored = Stored(connection, "run-2")
        assert sum(sampled.samples for sampled in stored.sampled()) == 345
    assert rebuild(three, check=True).changed_tables == []
