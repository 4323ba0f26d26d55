"""Sealed Parquet at an address: a real server of S3's protocol, moto's, that llem seals to and reads from, with credentials that show up nowhere."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llem.projections.sealed import OF_EXPERIMENTS, OF_SEGMENTS
from llem.seal.remote import RemoteFolder, at_once
from llem.store import Store
from tests import world
from tests.conftest import LIMIT_S, Run, Start, needs, wait_until

pytestmark = [pytest.mark.slow, *map(needs, ("s3fs", "moto", "flask"))]

KEY, SECRET = "CANARYKEY00000000001", "canary/secret+that0shows0up0nowhere"
EVERYTHING = " UNION ALL ".join(
    f"SELECT '{table}' AS of, count(*), sum(hash(t)) FROM {table} t"
    for table in (*OF_SEGMENTS, *OF_EXPERIMENTS)
)


class Server:
    """moto's server, and what llem needs to find it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_CACHE_HOME": str(folder),
        }

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """As nobody: moto lets everybody in, unless it is told not to."""
        plain = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.url}/{path}", method=method, data=content, headers=plain)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return bytes(answer.read())

    @contextlib.contextmanager
    def opened(self, bucket: str) -> Iterator[RemoteFolder]:
        """A bucket as its owner sees it, who alone may read and change what llem has put there."""
        with pytest.MonkeyPatch.context() as patch:
            for name, setting in self.environment.items():
                patch.setenv(name, setting)
            yield RemoteFolder(f"s3://{bucket}")

    def keys(self, bucket: str) -> list[str]:
        """Every object."""
        listed = self.ask("GET", f"{bucket}?list-type=2").decode()
        return [piece.partition("</Key>")[0] for piece in listed.split("<Key>")[1:]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of this file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers)
        yield Server(port, tmp_path_factory.mktemp("cache"))
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with an experiment of one process and one of two."""
    store = Store(tmp_path_factory.mktemp("remote") / "store").create()
    for number in (1, 2):
        world.experiment(store, processes=number, experiment_id=f"run-{number}")
    return store


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> str:
    """One for each test."""
    name = request.node.name.replace("_", "-").partition("[")[0][-60:].strip("-")
    server.ask("PUT", name)
    return name


@pytest.fixture
def sealed(server: Server, bucket: str, made: Store, llem: Run) -> str:
    """The address of the sealed store."""
    address = f"s3://{bucket}/store"
    done = llem("seal", "--store", made.path, "--to", address, **server.environment)
    assert done.returncode == 0, done.stderr
    return address


def asked(llem: Run, server: Server, address: str, sql: str, *options: object, **changes: str) -> str:
    """The answer as CSV."""
    done = llem("query", "--sealed", address, sql, "-f", "csv", *options, **server.environment, **changes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cached(folder: Path) -> list[Path]:
    """Files of a cache."""
    return [path for path in (folder / "llem" / "sealed").iterdir() if len(path.name) == 64]


def test_all_tables_are_those_of_the_store(
    server: Server, sealed: str, made: Store, llem: Run, tmp_path: Path
) -> None:
    """Rows and a hash of all their columns: at the address, in a sealed folder, and in the tables; done again, nothing is new."""
    at_address = asked(llem, server, sealed, EVERYTHING)
    assert llem("seal", "--store", made.path, "--to", tmp_path / "folder").returncode == 0
    folder = llem("query", "--sealed", tmp_path / "folder", EVERYTHING, "-f", "csv")
    tables = llem("query", EVERYTHING, "-f", "csv", "--store", made.path)
    assert at_address == folder.stdout == tables.stdout and "experiment_results,2," in at_address
    again = llem("seal", "--store", made.path, "--to", sealed, **server.environment)
    assert "nothing new, 8 segments" in again.stdout


def test_a_query_brings_what_it_asks_for_and_keeps_it(
    server: Server, sealed: str, llem: Run, tmp_path: Path
) -> None:
    """One experiment's samples are not all tables; their size is told first, and asked again nothing comes."""
    sql = "SELECT count(*) FROM samples WHERE experiment_id = 'run-2'"
    there = {**server.environment, "XDG_CACHE_HOME": str(tmp_path)}
    first = llem("query", "--sealed", sealed, sql, **there)
    assert "bringing 2 files" in first.stderr and f"from {sealed}" in first.stderr
    assert len(cached(tmp_path)) == 2
    again = llem("query", "--sealed", sealed, sql, **there)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert not list((tmp_path / "llem" / "sealed").glob(".*"))


def test_a_killed_seal_leaves_nothing_that_reads_as_done(
    server: Server, bucket: str, start_llem: Start, llem: Run, tmp_path: Path, environment: dict[str, str]
) -> None:
    """What the manifests name is there; what is not named is not read; done again all of it is there, once."""
    store = Store(tmp_path / "many").create()
    for number in range(2):
        world.experiment(store, processes=5, experiment_id=f"run-{number}")
    address = f"s3://{bucket}/store"
    environment.update(server.environment)
    sealing = start_llem("seal", "--store", store.path, "--to", address, "--workers", 2, process_group=0)
    wait_until(lambda: sum("/manifests/" in key for key in server.keys(bucket)) > 4)
    os.killpg(sealing.pid, signal.SIGKILL)
    sealing.wait()
    # a file that came without its line
    orphan = f"{bucket}/store/table=samples/experiment_id=run-0/host=alpha/orphan.parquet"
    server.ask("PUT", orphan, b"half a file")
    half = llem("query", "--sealed", address, EVERYTHING, **server.environment)
    assert half.returncode == 0 and "sealed only in part" in half.stderr, half.stderr
    done = llem("seal", "--store", store.path, "--to", address, **server.environment)
    assert done.returncode == 0, done.stderr
    tables = llem("query", EVERYTHING, "-f", "csv", "--store", store.path)
    assert asked(llem, server, address, EVERYTHING) == tables.stdout


def test_ranks_seal_shares_to_one_address(server: Server, bucket: str, made: Store, llem: Run) -> None:
    """Each puts its own files and lines; together it is what one would put."""
    address = f"s3://{bucket}/store"
    for share in ("0/2", "1/2"):
        done = llem("seal", "--store", made.path, "--to", address, "--share", share, **server.environment)
        assert done.returncode == 0, done.stderr
    assert asked(llem, server, address, "SELECT count(*) AS n FROM segments") == "n\n8\n"


def test_an_uploaded_folder_is_read_and_goes_on(
    server: Server, bucket: str, made: Store, llem: Run, tmp_path: Path
) -> None:
    """Whoever copies a sealed folder with another program has the same at the address; a segment that is gone from the log goes there too."""
    store = Store(tmp_path / "store").create()
    world.experiment(store)
    assert llem("seal", "--store", store.path, "--to", tmp_path / "folder").returncode == 0
    for path in (tmp_path / "folder").rglob("*"):
        if path.is_file():
            key = f"{bucket}/{path.relative_to(tmp_path / 'folder')}"
            server.ask("PUT", key, path.read_bytes())
    address = f"s3://{bucket}"
    assert asked(llem, server, address, "SELECT count(*) AS n FROM segments") == "n\n3\n"
    next(path for path in store.segments(world.EXPERIMENT) if path.name.startswith("sampler")).unlink()
    done = llem("seal", "--store", store.path, "--to", address, **server.environment)
    assert done.returncode == 0, done.stderr
    assert asked(llem, server, address, "SELECT count(*) AS n FROM segments") == "n\n2\n"
    assert not [key for key in server.keys(bucket) if "table=samples/" in key]


def test_credentials_show_up_nowhere(
    server: Server,
    sealed: str,
    bucket: str,
    made: Store,
    llem: Run,
    start_llem: Start,
    environment: dict[str, str],
) -> None:
    """Not in the store, the objects, the cache or what is said; the process that runs the SQL has none of them."""
    environment.update(server.environment)
    asking = start_llem("query", "--sealed", sealed, "SELECT count(*) FROM samples, range(10000000000)")

    def children() -> list[bytes]:
        found = []
        for child in Path(f"/proc/{asking.pid}/task/{asking.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"llem.query.child" in Path(f"/proc/{child}/cmdline").read_bytes() and cached(
                    Path(server.environment["XDG_CACHE_HOME"])
                ):
                    found.append(Path(f"/proc/{child}/environ").read_bytes())
        return found

    wait_until(children)
    seen = b"".join(children())
    asking.kill()
    texts = [seen, *(part.encode() for part in asking.communicate())]
    with server.opened(bucket) as objects:
        texts += [content for _, content in at_once(objects.read, server.keys(bucket))]
    for root in (made.path, Path(server.environment["XDG_CACHE_HOME"])):
        texts += [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    wrong = llem(
        "query", "--sealed", f"s3://{KEY}:{SECRET}@{bucket}/store", "FROM samples", **server.environment
    )
    signed = llem(
        "query", "--sealed", f"s3://{bucket}/store?X={SECRET}", "FROM samples", **server.environment
    )
    texts += [done.stderr.encode() for done in (wrong, signed)]
    assert wrong.returncode == signed.returncode == 2
    for canary in (KEY, SECRET):
        assert not [text for text in texts if canary.encode() in text]


def test_what_was_changed_or_removed_is_not_read(
    server: Server, sealed: str, bucket: str, llem: Run, tmp_path: Path
) -> None:
    """An object that is not what its manifest says, and one that is gone, are named; nothing of them stays in the cache."""
    there = {**server.environment, "XDG_CACHE_HOME": str(tmp_path)}
    sql = "SELECT count(*) FROM samples WHERE experiment_id = 'run-1'"
    (key,) = [key for key in server.keys(bucket) if "table=samples/experiment_id=run-1" in key]
    with server.opened(bucket) as objects:
        content = objects.read(key)
        for changed in (content[:-1] + bytes([content[-1] ^ 1]), content + b"x"):
            objects.write(key, changed)
            done = llem("query", "--sealed", sealed, sql, **there)
            assert done.returncode == 2 and "is not what its manifest says" in done.stderr
            assert len(done.stderr.splitlines()) == 2 and not cached(tmp_path)
        objects.remove([key])
    done = llem("query", "--sealed", sealed, sql, **there)
    assert done.returncode == 2 and "although the manifest names it" in done.stderr


def test_places_that_are_none_are_told_in_one_line(
    server: Server, bucket: str, made: Store, llem: Run
) -> None:
    """No such bucket, nothing sealed, nobody at the endpoint, no credentials, and a key that may not."""
    for address, says in (
        ("s3://no-such-bucket/x", "bucket does not exist"),
        (f"s3://{bucket}/empty", "nothing is sealed"),
    ):
        done = llem("query", "--sealed", address, "FROM samples", **server.environment)
        assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    done = llem("seal", "--store", made.path, "--to", "s3://no-such-bucket/x", **server.environment)
    assert done.returncode == 2 and "bucket does not exist" in done.stderr
    nobody = {**server.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    began = time.monotonic()
    done = llem("query", "--sealed", f"s3://{bucket}/x", "FROM samples", **nobody)
    assert done.returncode == 2 and "Could not connect" in done.stderr and len(done.stderr.splitlines()) == 1
    assert time.monotonic() - began < LIMIT_S
    nameless = {
        **server.environment,
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "HOME": "/nonexistent",
    }
    done = llem("query", "--sealed", f"s3://{bucket}/x", "FROM samples", **nameless)
    assert done.returncode == 2 and "credentials" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_key_that_may_not_is_told(server: Server, bucket: str, made: Store, llem: Run) -> None:
    """With where credentials come from."""
    server.ask("POST", "moto-api/reset-auth", b"0")
    try:
        for command in (
            ("query", "--sealed", f"s3://{bucket}/x", "FROM samples"),
            ("seal", "--store", made.path, "--to", f"s3://{bucket}/x"),
        ):
            done = llem(*command, **server.environment)
            assert done.returncode == 2 and "may not be listed" in done.stderr
            assert KEY not in done.stderr and len(done.stderr.splitlines()) == 1
    finally:
        server.ask("POST", "moto-api/reset-auth", b"1000000")


def test_two_queries_share_a_cache_that_is_too_small_for_both(
    server: Server, sealed: str, start_llem: Start, environment: dict[str, str], tmp_path: Path, llem: Run
) -> None:
    """What one removes the other still reads; afterwards there is no more than the limit."""
    environment.update(server.environment | {"XDG_CACHE_HOME": str(tmp_path)})
    runs = [
        start_llem(
            "query",
            "--sealed",
            sealed,
            f"SELECT count(*) AS n FROM samples WHERE experiment_id = 'run-{number}'",
            "-f",
            "csv",
            "--cache-limit",
            "12KB",
        )
        for number in (1, 2, 1, 2)
    ]
    answers = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, answers
    assert answers[0][0] == answers[2][0] != answers[1][0] == answers[3][0]
