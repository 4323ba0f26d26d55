"""What a query brings from an address, and the cache that it lies in; the address is here a folder of this machine, asked as any other address."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from llem.errors import LlemError, MissingExtraError, StoreError
from llem.query.process import Limits
from llem.query.pruning import scanned, scans_of
from llem.seal import brought
from llem.seal.brought import Cache, Wanted, limit_bytes, sealed_at, wanted
from llem.seal.remote import RemoteFolder
from llem.seal.sealing import seal
from llem.seal.tasks import perform
from llem.store import Store
from tests import world

pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sealed folder of two experiments, sealed to its address."""
    store = Store(tmp_path_factory.mktemp("brought") / "store").create()
    for number in (1, 2):
        world.experiment(store, processes=number, experiment_id=f"run-{number}")
    seal(store, f"local://{store.path}/sealed", fan_out=lambda tasks: map(perform, tasks))
    return store.path / "sealed"


@pytest.fixture
def remote(made: Path, tmp_path: Path) -> RemoteFolder:
    """A copy of it."""
    return RemoteFolder(f"local://{shutil.copytree(made, tmp_path / 'sealed')}")


def samples_of(remote: RemoteFolder, *experiment_ids: str) -> Wanted:
    """The files of a query for samples."""
    return wanted(remote, ["run-1", "run-2"], {"samples": frozenset(experiment_ids)})


def bring(remote: RemoteFolder, asked: Wanted, cache: Cache) -> dict[str, bytes]:
    """What a query reads: path -> content."""
    with cache.view() as view:
        missing = cache.take(asked.files, view)
        cache.make_room(asked.files, missing)
        for file in missing:
            cache.bring(file, view, remote, lambda count: None)
        return {str(path.relative_to(view)): path.read_bytes() for path in view.rglob("*") if path.is_file()}


def kept(cache: Path) -> set[str]:
    """Names of all files in a cache, views and what is half there included."""
    return {path.name for path in cache.rglob("*")} if cache.is_dir() else set()


@pytest.mark.slow
def test_an_address_holds_what_a_folder_holds(made: Path, tmp_path: Path) -> None:
    """The same files in the same places, byte for byte; and nothing is done twice."""
    store = Store(made.parent)
    seal(store, tmp_path, fan_out=lambda tasks: map(perform, tasks))
    paths = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.parquet")}
    assert paths == {path.relative_to(made) for path in made.rglob("*.parquet")}
    again = seal(store, f"local://{made}", fan_out=lambda tasks: map(perform, tasks))
    assert (again.segments, again.experiments, again.done_before) == (0, 0, 8)


def test_nothing_stays_of_a_damaged_experiment(tmp_path: Path) -> None:
    """Neither its files nor the manifest that names them, though it was whole when it was sealed first."""
    store = Store(tmp_path / "store").create()
    world.experiment(store)
    address = f"local://{tmp_path}/sealed"
    assert seal(store, address, fan_out=lambda tasks: map(perform, tasks)).left == []
    segment = store.segments(world.EXPERIMENT)[1]
    segment.write_bytes(segment.read_bytes()[:-40] + b"x" * 60)
    (left,) = seal(store, address, fan_out=lambda tasks: map(perform, tasks)).left
    assert left.kind == "damaged"
    assert not [path for path in (tmp_path / "sealed").rglob("*") if path.is_file()]


def test_only_files_of_what_is_asked_for_are_brought(remote: RemoteFolder) -> None:
    """By table and experiment; an experiment that nobody asks for is not even looked at."""
    asked = wanted(remote, ["run-1", "run-2"], {"samples": frozenset({"run-2"}), "experiments": None})
    tables = {(file.table, file.path.split("/")[1]) for file in asked.files}
    assert sorted(tables) == [
        ("experiments", "experiment_id=run-1"),
        ("experiments", "experiment_id=run-2"),
        ("samples", "experiment_id=run-2"),
    ]
    shutil.rmtree(Path(remote.address.removeprefix("local://")) / "manifests" / "experiment_id=run-1")
    assert samples_of(remote, "run-2").whole == ["run-2"]
    with pytest.raises(StoreError, match="not there any more"):
        samples_of(remote, "run-1")


def test_a_store_at_an_address_is_found_by_its_own_name(made: Path, tmp_path: Path) -> None:
    """As that of a folder is; where nothing is sealed, that is said with what to do."""
    assert sealed_at(f"local://{made.parent}")[1] == ["run-1", "run-2"]
    with pytest.raises(StoreError, match=r"nothing is sealed at local.*llem seal --to local"):
        sealed_at(f"local://{tmp_path}")


def test_the_cache_keeps_what_was_used_last(remote: RemoteFolder, tmp_path: Path) -> None:
    """Within its limit; what a query needs is more than that: refused before anything is brought."""
    first, second = samples_of(remote, "run-1"), samples_of(remote, "run-2")
    size = max(sum(file.bytes for file in asked.files) for asked in (first, second))
    cache = Cache(tmp_path / "cache", limit_bytes=size)
    bring(remote, first, cache)
    bring(remote, second, cache)
    assert kept(tmp_path / "cache") == {file.sha256 for file in second.files}
    with pytest.raises(StoreError, match="too small"):
        bring(remote, samples_of(remote, "run-1", "run-2"), cache)
    assert kept(tmp_path / "cache") == {file.sha256 for file in second.files}


def test_what_lies_in_the_cache_is_not_brought_again(remote: RemoteFolder, tmp_path: Path) -> None:
    """Nor is what somebody has changed there read: it is brought again."""
    asked, cache = samples_of(remote, "run-1"), Cache(tmp_path / "cache", limit_bytes=10**9)
    first = bring(remote, asked, cache)
    folder = Path(remote.address.removeprefix("local://"))
    moved = shutil.move(folder / "table=samples", tmp_path / "away")
    assert bring(remote, asked, cache) == first
    shutil.move(moved, folder / "table=samples")
    (file,) = asked.files
    path = tmp_path / "cache" / file.sha256
    path.write_bytes(b"x" * file.bytes)
    assert bring(remote, asked, cache) == first
    path.write_bytes(b"short")
    assert bring(remote, asked, cache) == first


@pytest.mark.parametrize("change", [b"", b"cut", None])
def test_what_is_not_what_the_manifest_says_is_never_kept(
    remote: RemoteFolder, tmp_path: Path, change: bytes | None
) -> None:
    """A file that was cut short, one that grew, and one that is gone."""
    asked, cache = samples_of(remote, "run-1"), Cache(tmp_path / "cache", limit_bytes=10**9)
    path = Path(remote.address.removeprefix("local://")) / asked.files[0].path
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change or path.read_bytes() + b"more")
    with pytest.raises(
        StoreError, match="although the manifest names it" if change is None else "is not what its"
    ):
        bring(remote, asked, cache)
    assert not kept(tmp_path / "cache")


def test_what_one_query_reads_no_other_takes(remote: RemoteFolder, tmp_path: Path) -> None:
    """While the cache is emptied beneath it; and what a killed one left goes with the next."""
    folder = tmp_path / "cache"
    asked = samples_of(remote, "run-1")
    size = sum(file.bytes for file in samples_of(remote, "run-2").files)
    cache = Cache(folder, limit_bytes=size)
    left = folder / ".query-killed"
    (left / "table=samples").mkdir(parents=True)
    with cache.view() as view:
        assert not left.exists()
        for file in asked.files:
            cache.bring(file, view, remote, lambda count: None)
        bring(remote, samples_of(remote, "run-2"), Cache(folder, limit_bytes=size))
        assert all((view / file.path).stat().st_size == file.bytes for file in asked.files)
    assert not {file.sha256 for file in asked.files} & kept(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../secret.parquet"},
        {"path": "table=samples/experiment_id=run-2/host=a/x.parquet"},
        {"path": "table=samples/experiment_id=run-1/host=../x.parquet/y"},
        {"sha256": "../../../etc/passwd"},
        {"bytes": -1},
    ],
)
def test_a_manifest_names_files_of_its_experiment_alone(
    remote: RemoteFolder, change: dict[str, object]
) -> None:
    """It comes from elsewhere: nothing that it says leads out of the folder."""
    root = Path(remote.address.removeprefix("local://"))
    (path,) = (root / "manifests" / "experiment_id=run-1").glob("_segment-sampler*")
    told = msgspec.json.decode(path.read_bytes())
    for file in told["segment"]["files"]:
        file.update(change)
    path.write_bytes(msgspec.json.encode(told))
    with pytest.raises(StoreError, match="the manifest of experiment run-1"):
        samples_of(remote, "run-1")


@pytest.mark.parametrize(
    ("written", "expected"),
    [("20GB", 20 * 10**9), ("1.5 mb", 1_500_000), ("7", 7), (None, brought.LIMIT_BYTES)],
)
def test_a_limit_is_a_size(written: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the option, or the environment."""
    monkeypatch.delenv("LLEM_CACHE_LIMIT", raising=False)
    assert limit_bytes(written) == expected
    if written is not None:
        monkeypatch.setenv("LLEM_CACHE_LIMIT", written)
        assert limit_bytes(None) == expected


@pytest.mark.parametrize("written", ["many", "-1", "5 GiB", "1e9"])
def test_a_limit_that_is_none_is_refused(written: str) -> None:
    """With how to write one."""
    with pytest.raises(StoreError, match="500MB"):
        limit_bytes(written)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nowhere9://x/y", "Protocol not known"),
        ("memory://x", "memory of one process"),
        ("s3://key:secret@bucket/x", "credentials are those of the environment"),
        ("https://host/x?signature=secret", "credentials are those of the environment"),
        ("s3://", "s3://BUCKET/FOLDER"),
        ("simplecache::s3://x", "s3://BUCKET/FOLDER"),
    ],
)
def test_what_is_no_address_is_refused(address: str, says: str) -> None:
    """Without showing what may be a secret."""
    with pytest.raises(LlemError, match=says) as told:
        RemoteFolder(address)
    assert "secret" not in str(told.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"llem\[remote\]"):
        RemoteFolder("s3://bucket/x")


def test_nothing_is_sealed_into_the_log_by_its_address(made: Path) -> None:
    """As by its path; nor where nobody writes, or where the package that would is not installed."""
    with pytest.raises(StoreError, match="one beside it"):
        seal(Store(made.parent), f"file://{made.parent}/log/x")
    with pytest.raises(LlemError, match=r"cannot be written|pip install aiohttp"):
        seal(Store(made.parent), "http://127.0.0.1:1/x")


def test_nothing_of_fsspec_is_loaded_otherwise() -> None:
    """Whoever asks a folder waits for none of it."""
    program = "import sys, llem.cli.seal, llem.cli.query, llem.cli.sealed; print({'fsspec', 's3fs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_plan_says_which_experiments_are_needed() -> None:
    """Of conditions that name them and nothing else; of several scans all, of several conditions those in each."""

    def scan(table: str, *filters: str) -> dict[str, object]:
        return {"extra_info": {"Table": f"memory.main.{table}", "Filters": list(filters)}, "children": []}

    def found(*nodes: dict[str, object]) -> object:
        return scans_of([{"extra_info": {}, "children": list(nodes)}])

    one, two = "(experiment_id = 'a')", "optional: (experiment_id IN ('a', 'b-1.x'))"
    assert found(scan("samples", one)) == {"samples": frozenset({"a"})}
    assert found(scan("samples", two, "(power_w > 3.0)")) == {"samples": frozenset({"a", "b-1.x"})}
    assert found(scan("samples", one, two)) == {"samples": frozenset({"a"})}
    assert found(scan("samples", "experiment_id='c'"), scan("samples", one)) == {
        "samples": frozenset({"a", "c"})
    }
    assert found(scan("samples", one), scan("samples")) == {"samples": None}
    for nothing in (
        "(experiment_id != 'a')",
        "(experiment_id = 'a') OR (power_w > 3)",
        "(other_experiment_id = 'a')",
    ):
        assert found(scan("samples", nothing)) == {"samples": None}
    assert found(scan("samples", "(meter = 'x", one, "y')")) == {"samples": None}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM samples_1s WHERE experiment_id = $run", {"samples_1s": frozenset({"run-1"})}),
        pytest.param("SELECT count(*), max(power_w) FROM samples", {"samples": None}, marks=pytest.mark.slow),
        pytest.param(
            "EXPLAIN ANALYZE FROM requests WHERE experiment_id IN ('a', 'b')",
            {"requests": frozenset({"a", "b"})},
            marks=pytest.mark.slow,
        ),
        pytest.param("DESCRIBE samples", {}, marks=pytest.mark.slow),
    ],
)
def test_duckdb_plans_over_tables_without_rows(sql: str, expected: object, tmp_path: Path) -> None:
    """Nothing is concluded from the missing rows; seconds are a table, as they are in Parquet."""
    parameters = {"run": "run-1"} if "$run" in sql else {}
    assert (
        scanned(sql, store=Store(tmp_path), parameters=parameters, factors=None, limits=Limits()) == expected
    )


def test_wrong_sql_is_told_where_it_is_wrong(tmp_path: Path) -> None:
    """Though something stands before it."""
    with pytest.raises(LlemError, match="line 1, column 8"):
        scanned(
            "SELECT nothing FROM samples", store=Store(tmp_path), parameters={}, factors=None, limits=Limits()
        )
