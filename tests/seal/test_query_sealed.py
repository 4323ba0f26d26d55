"""llem query --sealed: the same views and macros over Parquet, in the same sandbox."""

import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from llem.errors import LlemError
from llem.projections import catch_up
from llem.query.process import running
from llem.seal.sealing import seal
from llem.seal.tasks import perform
from llem.store import Store
from tests import world
from tests.conftest import LLEM, Run, read_as_anybody


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two experiments, sealed, in a folder whose name a pattern would take for itself."""
    store = Store(tmp_path_factory.mktemp("sealed [a-z]*") / "store").create()
    for number in (1, 2):
        world.experiment(store, processes=number, experiment_id=f"run-{number}")
    catch_up(store)
    seal(store, store.path / "sealed", fan_out=lambda tasks: map(perform, tasks))
    return store


def asked(store: Store, sql: str, *, sealed: bool) -> list[tuple[object, ...]]:
    """The rows of one statement."""
    folder = store.path / "sealed" if sealed else None
    with running(sql, store=store, sealed=folder) as result:
        return list(result.rows())


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(hash(r)), count(*) FROM experiment_results r",
        "SELECT sum(hash(s)), count(*) FROM samples s WHERE experiment_id = 'run-1'",
        "FROM timed_samples ORDER BY ALL LIMIT 20",
        "FROM power_over_time ORDER BY ALL",
        "FROM energy_between('run-2', 1, 5)",
        "FROM energy_by_activity('run-2', 1, 5)",
        "FROM requests_between('run-1', 0, 10)",
        "FROM goodput(ttft_ms := 200)",
        "FROM footprint(pue := 1.5, g_per_kwh := 381)",
        "FROM power_envelope('run-2', 10)",
        "FROM energy_per_token",
        "DESCRIBE samples",
    ],
)
def test_the_same_answers(sql: str, store: Store) -> None:
    """Tables, views and macros say over Parquet what they say over the tables."""
    assert asked(store, sql, sealed=True) == asked(store, sql, sealed=False)


@pytest.mark.slow
def test_nothing_else_can_be_read(store: Store) -> None:
    """The sandbox lets the sealed folder through, and no other file."""
    (store.path / "secret.csv").write_text("a")
    with pytest.raises(LlemError, match="refused"):
        asked(store, f"FROM read_csv('{store.path}/secret.csv')", sealed=True)


def test_only_files_of_the_experiment_asked_for_are_opened(store: Store, tmp_path: Path) -> None:
    """What lies in another experiment's folder may be no Parquet at all."""
    copy = Store(shutil.copytree(store.path, tmp_path / "copy"))
    for path in (copy.path / "sealed" / "table=samples" / "experiment_id=run-2").glob("*/*.parquet"):
        path.write_bytes(b"broken")
    assert asked(copy, "SELECT count(*) > 0 FROM samples WHERE experiment_id = 'run-1'", sealed=True) == [
        (True,)
    ]


@pytest.mark.slow
def test_the_folder_stands_before_the_sql(store: Store, llem: Run, tmp_path: Path) -> None:
    """Without a store at hand its sealed folder alone is asked, with no tables; where nothing is sealed, that is said."""
    alone = shutil.copytree(store.path / "sealed", tmp_path / "alone")
    done = llem("query", "--sealed", alone, "SELECT count(*) AS n FROM experiments", "-f", "csv")
    assert (done.stdout, done.returncode) == ("n\n2\n", 0), done.stderr
    assert llem("query", "--sealed", tmp_path, "SELECT 1").returncode == 2
    assert llem("query", "SELECT 1", "SELECT 2", "--store", store.path).returncode == 2


@pytest.mark.parametrize("written", ["hello", "COPY (SELECT 1 AS other) TO '{}' (FORMAT parquet)"])
def test_a_file_that_is_damaged_or_of_another_llem_is_told(
    store: Store, tmp_path: Path, written: str
) -> None:
    """With what to do, before any row."""
    shutil.copytree(store.path / "sealed", tmp_path / "sealed")
    for path in (tmp_path / "sealed" / "table=hosts").rglob("*.parquet"):
        path.unlink()
    path = tmp_path / "sealed" / "table=hosts" / "experiment_id=run-1" / "run-1.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    if written.startswith("COPY"):
        duckdb.execute(written.format(path))
    else:
        path.write_text(written)
    with pytest.raises(LlemError, match=r"sealed Parquet of table hosts.*run `llem seal` again"):
        asked(Store(tmp_path), "FROM hosts", sealed=True)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["", "table=samples", "table=samples/experiment_id=run-2"])
def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    store: Store, tmp_path: Path, environment: dict[str, str], closed: str
) -> None:
    """What another user sealed lies in private folders: a count of them would be 0, or too small."""
    root = tmp_path / "sealed"
    shutil.copytree(store.path / "sealed", root)
    (root / closed).chmod(0)
    asking = [LLEM, "query", "--sealed", root, "SELECT count(*) FROM samples"]
    done = subprocess.run(
        asking, env=environment, capture_output=True, text=True, check=False, preexec_fn=read_as_anybody
    )
    (root / closed).chmod(0o700)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Permission denied" in done.stderr
