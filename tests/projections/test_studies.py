"""Studies in SQL: their views and macros, beside what Python says of the same runs."""

import duckdb
import pytest

from llem.projections.current import open_caught_up
from llem.results import comparison, student_t
from llem.store import Store
from llem_events.events import ExperimentCompleted, StudyPlace
from tests.world import run_of_energy

STUDY = "20260102-030400-000000000000"
ENERGIES = ([1.0, 1.01, 0.99], [2.02, 1.99, 2.0])  # of each cell, block after block
FAILED = ExperimentCompleted(processes_completed=1, processes_failed=0, failure="the sampler died")


def measured(
    store: Store,
    cell: int,
    block: int,
    *,
    energy: float = 1.0,
    attempt: int = 0,
    restarts: int = 0,
    **end: ExperimentCompleted,
) -> None:
    """A run of one GPU that took so many times the usual energy."""
    place = StudyPlace(
        study_id=STUDY,
        cell_index=cell,
        cell={"engine.batch_size": 4 * cell, "model.dtype": "float32"},
        block=block,
        position=cell,
        attempt=attempt,
        block_restarts=restarts,
        name="sizes",
        cells=2,
        blocks=4,
    )
    run = f"20260102-03040{block}-{restarts:04}{attempt:04}{cell:04}"
    run_of_energy(store, energy, experiment_id=run, study=place, **end)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """Two cells in three blocks, of a fourth one run, one run that failed and one that was superseded; no test changes them."""
    store = Store(tmp_path_factory.mktemp("studies") / "store").create()
    for cell, energies in enumerate(ENERGIES):
        for block, energy in enumerate(energies):
            measured(
                store,
                cell,
                block,
                energy=energy,
                restarts=int(block == 2),
                attempt=int((cell, block) == (0, 1)),
            )
    measured(store, 0, 3)
    measured(store, 0, 2, energy=9.0)
    measured(store, 0, 1, energy=9.0, end=FAILED)
    return open_caught_up(store, lambda line: None)


def test_a_run_says_whether_it_counts_and_why_not(tables: duckdb.DuckDBPyConnection) -> None:
    """One run for each place of the schedule."""
    rows = tables.execute("SELECT block, reason FROM study_runs WHERE NOT counted ORDER BY ALL").fetchall()
    assert rows == [(1, "the sampler died"), (2, "superseded: its block was begun anew")]
    assert tables.execute("SELECT count(*) FROM study_runs WHERE counted").fetchone() == (7,)


def test_a_study_is_a_row(tables: duckdb.DuckDBPyConnection) -> None:
    """With what was planned and what is left."""
    found = tables.execute("SELECT * EXCLUDE (started_time) FROM studies").fetchall()
    assert found == [(STUDY, "sizes", 2, 4, 9, 7, 1)]


def test_results_know_their_place(tables: duckdb.DuckDBPyConnection) -> None:
    """The cell as one would write it."""
    sql = "SELECT DISTINCT study_id, cell, position FROM experiment_results ORDER BY position"
    cells = [{"engine.batch_size": str(4 * cell), "model.dtype": "float32"} for cell in (0, 1)]
    assert tables.execute(sql).fetchall() == [(STUDY, cells[0], 0), (STUDY, cells[1], 1)]


ODD_CELL = {
    "labels.size": 'a "b"\n',
    "engine.number": "1",
    "engine.tiny": 1e-5,
    "engine.large": 1e16,
    "engine.flag": True,
    "engine.list": [1, "x", 2.5],
    "model.load": {"x": {"y": 1.0}},
}


def test_a_cell_is_the_same_in_every_table(log: Store) -> None:
    """Results and runs of a study join by it, whatever kind of value a key has, and so do its ratios."""
    for index, cell in enumerate([{"engine.batch_size": 4}, ODD_CELL]):
        for block in range(2):
            place = StudyPlace(study_id=STUDY, cell_index=index, cell=cell, block=block, position=index)
            run_of_energy(log, 1.0 + index, experiment_id=f"run-{index}{block}", study=place)
    with open_caught_up(log, lambda line: None) as tables:
        joined = "FROM study_runs JOIN experiment_results r USING (study_id, cell, block) SELECT count(*), count(DISTINCT cell)"
        assert tables.execute(joined).fetchall() == [(4, 2)]
        ratio = f"FROM paired_ratio('{STUDY}', 'total_energy_j') JOIN experiment_results USING (cell) SELECT round(ratio, 6), block"
        assert tables.execute(ratio + " ORDER BY block").fetchall() == [(2.0, 0), (2.0, 1)]


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_ratio_in_sql_is_that_of_python(tables: duckdb.DuckDBPyConnection, level: float) -> None:
    """The same interval from the same pairs."""
    python = comparison.compare(*ENERGIES, paired=True, level=level)
    sql = "SELECT pairs, ratio, ratio_low, ratio_high FROM paired_ratio(?, 'total_energy_j', 0, ?)"
    (pairs, *ratios), *others = tables.execute(sql, [STUDY, level]).fetchall()
    assert (pairs, others) == (3, [])
    assert ratios == pytest.approx([python.ratio, python.ratio_low, python.ratio_high], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'joules'", "no figure of experiment_results: joules"),
        ("'total_energy_j', 0, 0.5", "expected 0.9, 0.95 or 0.99"),
    ],
)
def test_an_unknown_figure_or_level_is_refused(
    tables: duckdb.DuckDBPyConnection, arguments: str, said: str
) -> None:
    """Instead of an empty answer."""
    with pytest.raises(duckdb.Error, match=said):
        tables.execute(f"FROM paired_ratio('{STUDY}', {arguments})").fetchall()


def test_the_table_of_quantiles_is_what_python_says(tables: duckdb.DuckDBPyConnection) -> None:
    """For a few of its rows; it ends at 200 degrees of freedom."""
    rows = tables.execute("FROM student_t ORDER BY df").fetchall()
    assert [row[0] for row in rows] == list(range(1, 201))
    for degrees in (1, 2, 4, 9, 30, 200):
        expected = [student_t.quantile(level, degrees) for level in (0.9, 0.95, 0.99)]
        assert rows[degrees - 1][1:] == pytest.approx(expected, rel=1e-11)


def test_a_spike_is_in_the_envelope_of_power(tables: duckdb.DuckDBPyConnection) -> None:
    """So many steps in order, and the extremes of the samples."""
    run = tables.execute("SELECT experiment_id FROM study_runs WHERE block = 3").fetchall()[0][0]
    rows = tables.execute("FROM power_envelope(?, 20)", [run]).fetchall()
    assert [row[2] for row in rows] == list(range(20))
    extremes = tables.execute("SELECT min(power_w), max(power_w) FROM samples WHERE experiment_id = ?", [run])
    assert [(min(row[5] for row in rows), max(row[7] for row in rows))] == extremes.fetchall()
