"""llem seal --engine dask: a real scheduler and real workers, one of which is killed."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llem.errors import LlemError, MissingExtraError
from llem.projections import catch_up, open_readonly
from llem.projections.sealed import open_sealed
from llem.seal.workers import by_dask, check_address
from llem.store import Store
from tests import world
from tests.conftest import Run, Start, wait_until
from tests.seal.test_seal import hashes, wait_for_files


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler and its two workers, on this machine alone."""
    pytest.importorskip("distributed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["worker", address, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for arguments in (scheduler, worker, worker)
    ]
    try:
        wait_until(lambda: answers(port))
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_dask_seals_the_same_rows(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], start_llem: Start, tmp_path: Path
) -> None:
    """Every table is as processes seal it, by hash, though one worker dies; results need no tables of the store."""
    address, workers = cluster
    store = Store(tmp_path / "store").create()
    for number in range(3):
        world.experiment(store, processes=4, experiment_id=f"run-{number}")
    sealing = start_llem("seal", "--store", store.path, "--engine", "dask", "--scheduler", address, "--json")
    wait_for_files(store.path / "sealed", 1)
    workers[0].kill()
    output, errors = sealing.communicate()
    assert sealing.returncode == 0, errors
    told = json.loads(output)
    assert (told["segments"], told["experiments"], told["left"]) == (27, 3, [])
    assert not store.projections_path.exists()
    catch_up(store)
    with open_readonly(store) as tables, open_sealed(store.path / "sealed") as parquet:
        assert hashes(parquet) == hashes(tables)


@pytest.mark.slow
def test_a_scheduler_without_dask_is_refused(llem: Run, tmp_path: Path) -> None:
    """Whoever names one wants it used."""
    store = Store(tmp_path / "store").create()
    world.experiment(store)
    done = llem("seal", "--store", store.path, "--engine", "processes", "--scheduler", "tcp://127.0.0.1:1")
    assert done.returncode == 2 and "--engine dask" in done.stderr
    done = llem("seal", "--store", store.path, "--engine", "dask")
    assert done.returncode == 2 and "no scheduler" in done.stderr


def test_nothing_of_dask_is_loaded_otherwise() -> None:
    """Whoever seals by processes waits for none of it."""
    program = (
        "import sys, llem.cli.seal, llem.seal.sealing; print({'dask', 'distributed'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"llem\[dask\]"):
        list(by_dask([], scheduler="tcp://127.0.0.1:1"))


@pytest.mark.parametrize("written", ["", "foo", "http://x y", "tcp://127.0.0.1", "tcp://127.0.0.1:1/x"])
def test_what_is_no_address_is_refused(written: str) -> None:
    """Dask itself would complain of it and never end."""
    with pytest.raises(LlemError, match="tcp://HOST:8786"):
        check_address(written)
