"""llem seal: Parquet that says what the tables say, whole or not at all."""

import fcntl
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from llem.errors import StoreError
from llem.projections import catch_up, open_readonly
from llem.projections.sealed import OF_EXPERIMENTS, OF_SEGMENTS, manifest_folder, open_sealed
from llem.seal.sealing import Sealing, Share, seal
from llem.seal.segment import sha256
from llem.seal.tasks import Done, Task, perform
from llem.store import Store
from llem_events import redact
from tests import world
from tests.conftest import Run, Start, wait_until
from tests.delays import best_of_rounds, delays

IDS = ["run-1", "run-2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with an experiment of one process and one of two."""
    store = Store(tmp_path_factory.mktemp("seal") / "store").create()
    for number, experiment_id in enumerate(IDS, start=1):
        world.experiment(store, processes=number, experiment_id=experiment_id)
    catch_up(store)
    return store


@pytest.fixture
def log(tmp_path: Path) -> Store:
    """A store of one experiment for one test."""
    store = Store(tmp_path / "store").create()
    world.experiment(store)
    return store


def here(tasks: list[Task]) -> Iterator[Done]:
    """All tasks in this process."""
    return map(perform, tasks)


def sealed(store: Store, root: Path, **options: object) -> Sealing:
    """Seal in this process."""
    return seal(store, root, fan_out=here, **options)  # type: ignore[arg-type]


def hashes(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Rows and a hash of all their columns, for every table."""
    found = {}
    for table in (*OF_SEGMENTS, *OF_EXPERIMENTS):
        rows = connection.execute(f"SELECT count(*), sum(hash(t)) FROM {table} t").fetchall()
        found[table] = rows[0]
    return found


def test_every_table_equals_its_parquet(made: Store, tmp_path: Path) -> None:
    """Samples, their seconds, requests and results are the same rows in the same columns, by hash."""
    told = sealed(made, tmp_path)
    assert (told.experiments, told.segments, told.left) == (2, 8, [])
    with open_readonly(made) as tables, open_sealed(tmp_path) as parquet:
        assert hashes(parquet) == hashes(tables)
        assert tables.execute("SELECT count(*) FROM samples").fetchall() == [(told.samples,)]


def test_seconds_say_what_their_samples_say(made: Store) -> None:
    """Count, mean, least and greatest power of a second, the counter at its end, every reason that was set."""
    with open_readonly(made) as tables:
        found = tables.execute(
            "SELECT count(*), sum(samples), min(min_power_w), max(max_power_w), "
            "sum(mean_power_w * samples) / sum(samples) FROM samples_1s WHERE experiment_id = 'run-1'"
        ).fetchall()[0]
        told = tables.execute(
            "SELECT count(DISTINCT at_ns // 1000000000), count(*), min(power_w), max(power_w), avg(power_w) "
            "FROM samples WHERE experiment_id = 'run-1'"
        ).fetchall()[0]
    assert found[:4] == told[:4] and found[4] == pytest.approx(told[4], rel=1e-12)


@pytest.mark.slow
def test_ranks_share_the_work_and_nothing_is_done_twice(made: Store, tmp_path: Path) -> None:
    """Three ranks, each of its own, seal what one would; none of them builds the store's tables."""
    told = [sealed(made, tmp_path, share=Share(rank, 3)) for rank in range(3)]
    assert sum(each.segments for each in told) == 8 and sum(each.experiments for each in told) == 2
    assert {each.segments for each in told} != {8}
    with open_readonly(made) as tables, open_sealed(tmp_path) as parquet:
        assert hashes(parquet) == hashes(tables)


def test_the_manifest_pins_what_was_read_and_written(log: Store, tmp_path: Path) -> None:
    """Rows and SHA-256 of every file, and the digest of the segment that it came from."""
    sealed(log, tmp_path)
    lines = [
        json.loads(line)
        for line in (manifest_folder(tmp_path, world.EXPERIMENT) / "_manifest.jsonl").read_text().splitlines()
    ]
    segments, results = [line["segment"] for line in lines if "segment" in line], lines[-1]["results"]
    assert len(segments) == 3 and all(len(segment["digest"]) == 64 for segment in segments)
    assert results["status"] == "completed" and len(results["log_bytes"]) == 3
    files = [file for told in (*segments, results) for file in told["files"]]
    assert files and all(sha256(tmp_path / file["path"]) == file["sha256"] for file in files)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")}
    assert there == {file["path"] for file in files}


@pytest.mark.slow
def test_what_is_sealed_is_skipped(log: Store, tmp_path: Path) -> None:
    """A second time does nothing; a file that is gone, and a line that was cut short, are made again."""
    root = tmp_path / "sealed"
    sealed(log, root)
    again = sealed(log, root)
    assert (again.segments, again.experiments, again.done_before) == (0, 0, 3)
    next(root.glob("table=samples/*/*/*.parquet")).unlink()
    assert sealed(log, root).segments == 1
    manifest = manifest_folder(root, world.EXPERIMENT) / "_manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    sealed(log, root)
    again = sealed(log, root)
    assert (again.segments, again.experiments) == (0, 0)


@pytest.mark.slow
def test_a_segment_that_comes_later_brings_new_results(log: Store, tmp_path: Path) -> None:
    """Another host's segments are collected afterwards: they are sealed, and the experiment's results anew."""
    root = tmp_path / "sealed"
    sealed(log, root)
    world.write(log, world.worker_events(1, uuid="GPU-1"), role="worker", index=1)
    told = sealed(log, root)
    assert (told.segments, told.experiments, told.done_before) == (1, 1, 3)
    with open_sealed(root) as parquet:
        assert parquet.execute("SELECT count(*) FROM processes").fetchall() == [(2,)]


@pytest.mark.slow
def test_a_copy_of_a_segment_is_not_sealed_again(log: Store, tmp_path: Path) -> None:
    """Its rows would count twice."""
    segment = log.segments(world.EXPERIMENT)[0]
    segment.with_name(f"a-{segment.name}").write_bytes(segment.read_bytes())
    assert sealed(log, tmp_path / "sealed").segments == 3
    again = sealed(log, tmp_path / "sealed")
    assert (again.segments, again.experiments) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("has_successor", [False, True])
def test_nothing_stays_of_a_segment_that_is_no_longer_in_the_log(
    log: Store, tmp_path: Path, has_successor: bool
) -> None:
    """One that was taken away, or whose redacted copy took its place, is in no sealed file either."""
    root = tmp_path / "sealed"
    sealed(log, root)
    gone = next(path for path in log.segments(world.EXPERIMENT) if path.name.startswith("worker"))
    if has_successor:
        copy = gone.with_name(f"redacted-{gone.name}")
        redact(gone, copy, texts=["transformers"])
    gone.unlink()
    sealed(log, root)
    with open_readonly(log) as tables, open_sealed(root) as parquet:
        assert hashes(parquet) == hashes(tables)


def test_two_do_not_seal_into_one_folder_at_once(log: Store, tmp_path: Path) -> None:
    """The second is refused before it writes; shares of one job work side by side."""
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    with pytest.raises(StoreError, match="another `llem seal` at work"):
        sealed(log, tmp_path)
    assert not list(tmp_path.glob("table=*"))
    assert sealed(log, tmp_path, share=Share(0, 2)).left == []
    os.close(fd)


@pytest.mark.parametrize("inside", ["log", "log/sealed", "studies", "calibrations/new"])
def test_nothing_is_sealed_into_the_log(log: Store, inside: str) -> None:
    """A folder of Parquet there would look like an experiment; and those of studies and calibrations have their readers too."""
    with pytest.raises(StoreError, match="one beside it to seal into"):
        seal(log, log.path / inside)
    assert log.experiment_ids() == [world.EXPERIMENT]


def test_a_file_that_a_killed_process_left_is_written_over(log: Store, tmp_path: Path) -> None:
    """Not beside it, where another kill would leave a file that nothing removes."""
    sealed(log, tmp_path)
    for path in tmp_path.glob("table=samples/*/*/*.parquet"):
        path.rename(path.with_name(f".{path.stem}.tmp"))
    (left,) = tmp_path.glob("table=samples/*/*/.*")
    inode = left.stat().st_ino
    sealed(log, tmp_path)
    assert [path.stat().st_ino for path in tmp_path.glob("table=samples/*/*/*")] == [inode]


def test_an_experiment_that_goes_on_is_left(log: Store, tmp_path: Path) -> None:
    """With the reason, and nothing of it is sealed."""
    with log.segments(world.EXPERIMENT)[0].open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        (left,) = sealed(log, tmp_path / "sealed").left
    assert left.kind == "unfinished" and "being written" in left.reason
    assert not list((tmp_path / "sealed").rglob("*.parquet"))


@pytest.mark.slow
def test_nothing_stays_of_a_damaged_experiment(log: Store, tmp_path: Path) -> None:
    """Its sound segments would look like all of it; another experiment is sealed all the same."""
    world.experiment(log, experiment_id="run-2")
    segment = log.segments(world.EXPERIMENT)[1]
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    segment.write_bytes(damaged)
    told = sealed(log, tmp_path / "sealed")
    assert [left.kind for left in told.left] == ["damaged"] and told.experiments == 1
    assert told.segments == len(log.segments("run-2"))
    assert segment.name in told.left[0].reason
    assert not list((tmp_path / "sealed").rglob(f"experiment_id={world.EXPERIMENT}/**/*.parquet"))


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_told_in_words(log: Store, tmp_path: Path) -> None:
    """Nothing of DuckDB's own wrapping, and nothing half-written stays."""
    name = next(path.name for path in log.segments(world.EXPERIMENT) if path.name.startswith("sampler"))
    task = Task(store=str(log.path), root=str(tmp_path / "sealed"), experiment_id=world.EXPERIMENT, file=name)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        done = perform(task)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.kind == "failed" and done.reason is not None
    assert "File too large" in done.reason and "exception_type" not in done.reason
    assert not [path for path in tmp_path.glob("sealed/**/*") if path.is_file()]


@pytest.mark.slow
def test_a_host_of_any_name_has_a_folder(tmp_path: Path) -> None:
    """Names from outside cannot leave the folder, nor be patterns."""
    store = Store(tmp_path / "store").create()
    world.supervisor(store)
    world.write(store, world.sampler_events(), role="sampler", index=0, host="../*[a] b")
    sealed(store, tmp_path / "sealed")
    with open_sealed(tmp_path / "sealed") as parquet:
        assert parquet.execute("SELECT count(*) > 0 FROM samples").fetchall() == [(True,)]
    assert {path.name for path in tmp_path.iterdir()} == {"store", "sealed"}


@pytest.mark.slow
def test_the_command_says_what_it_sealed(log: Store, llem: Run) -> None:
    """One line says what was done; a share that is none is refused."""
    done = llem("seal", "--store", log.path, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (told["segments"], told["experiments"]) == (3, 1)
    assert "nothing new, 3 segments" in llem("seal", "--store", log.path).stdout
    assert llem("seal", "--store", log.path, "--share", "4/4").returncode == 2


@pytest.mark.slow
def test_ranks_of_a_launcher_seal_a_share_each(made: Store, llem: Run, tmp_path: Path) -> None:
    """What srun says of a process decides what it does."""
    told = []
    for rank in range(2):
        done = llem(
            "seal", "--store", made.path, "--to", tmp_path, "--json", LLEM_RANK=str(rank), LLEM_SIZE="2"
        )
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert sum(each["segments"] for each in told) == 8
    assert all(0 < each["segments"] < 8 for each in told)


def workers_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@best_of_rounds
def test_a_thousand_segments_survive_killed_processes(tmp_path: Path, start_llem: Start) -> None:
    """Two workers killed and then the parent: done again it is complete, without a row twice, and no query ever sees half a file."""
    store = Store(tmp_path / "store").create()
    for number in range(10):
        world.experiment(store, processes=50, experiment_id=f"run-{number}")
    root = store.path / "sealed"
    first = start_llem("seal", "--store", store.path, "--workers", 2)
    for wanted in (50, 150):
        wait_for_files(root, wanted)
        with delays(IndexError, ProcessLookupError):  # there is still something to do
            os.kill(workers_of(first.pid)[0], signal.SIGKILL)
        with open_sealed(root, described=False) as parquet:
            told = "SELECT count(*) > 0, bool_and(samples > 0) FROM samples_1s"
            assert parquet.execute(told).fetchall() == [(True, True)]
    wait_for_files(root, 400)
    workers = workers_of(first.pid)
    first.kill()
    first.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))
    again = start_llem("seal", "--store", store.path)
    assert again.wait() == 0
    with open_readonly(store) as tables, open_sealed(root) as parquet:
        assert hashes(parquet) == hashes(tables)
        assert parquet.execute("SELECT count(*) FROM segments").fetchall() == [(1010,)]
    assert not [path for path in root.rglob("*") if path.name.startswith(".")]


def wait_for_files(root: Path, wanted: int) -> None:
    """Until so many are sealed."""
    deadline = time.monotonic() + 200
    while sum(1 for _ in root.glob("table=samples*/*/*/*.parquet")) < wanted:
        assert time.monotonic() < deadline, "too few were sealed"
        time.sleep(0.2)
