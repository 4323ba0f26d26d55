"""Whatever starts several `llem measure`, one experiment comes of them: the launchers themselves run here."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import LIMIT_S, LLEM, QUICK, SIMULATED, events_of, segments
from tests.measure import slurm

pytestmark = pytest.mark.slow
HERE = {"LLEM_RENDEZVOUS": "127.0.0.1"}
MEASURE = [str(LLEM), "measure", *SIMULATED, *QUICK]


def needs(*programs: str) -> pytest.MarkDecorator:
    """Continuous integration installs them, and skips nothing."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(
        bool(missing) and not os.environ.get("CI"), reason=f"not installed: {' '.join(missing)}"
    )


def launch(
    environment: dict[str, str], *command: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def check_one(done: subprocess.CompletedProcess[str], store: Path, *, ranks: int, launcher: str) -> None:
    """One experiment of so many processes, one result printed, status 0."""
    assert done.returncode == 0, done.stderr
    assert len(list((store / "log").iterdir())) == 1
    assert done.stdout.count("verdict:") == 1
    joined = [event for role in ("supervisor", "rank") for event in events_of(store, role, "host_joined")]
    assert sorted(event["rank"] for event in joined) == list(range(ranks))
    assert {(event["size"], event["launcher"]) for event in joined} == {(ranks, launcher)}
    assert len(segments(store, "worker")) == len(segments(store, "sampler")) == ranks


@pytest.fixture(scope="module")
def slurm_conf() -> Iterator[Path]:
    """A running Slurm's configuration."""
    if not slurm.is_there() and not os.environ.get("CI"):
        pytest.skip("no Slurm, or not root")
    folder = Path(tempfile.mkdtemp(prefix="llem-slurm-"))
    folder.chmod(0o755)
    try:
        with slurm.running(folder) as configuration:
            yield configuration
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_srun_starts_one_experiment(environment: dict[str, str], store: Path, slurm_conf: Path) -> None:
    """Three nodes, a task each."""
    done = launch(environment, "srun", "-N3", "-n3", *MEASURE, SLURM_CONF=str(slurm_conf), **HERE)
    check_one(done, store, ranks=3, launcher="slurm")


def test_a_batch_script_measures_alone(
    environment: dict[str, str], store: Path, slurm_conf: Path, tmp_path: Path
) -> None:
    """Slurm gives the script itself a rank, and it is none of three."""
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\nexec {' '.join(MEASURE)}\n")
    done = launch(
        environment,
        *("sbatch", "-W", "-N3", "-n3", "-o", tmp_path / "out", "-e", tmp_path / "err", script),
        SLURM_CONF=str(slurm_conf),
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "err").read_text()
    assert len(segments(store, "worker")) == 1
    assert (tmp_path / "out").read_text().count("verdict:") == 1


@needs("mpiexec.openmpi")
def test_open_mpi_starts_one_experiment(environment: dict[str, str], store: Path) -> None:
    """Three ranks on one machine need not be told where they meet."""
    options = ("--allow-run-as-root", "--oversubscribe", "-n", 3)
    check_one(launch(environment, "mpiexec.openmpi", *options, *MEASURE), store, ranks=3, launcher="openmpi")


@needs("mpiexec.hydra")
def test_hydra_starts_one_experiment(environment: dict[str, str], store: Path) -> None:
    """Two machines by name, both of them this one."""
    options = ("-launcher", "fork", "-hosts", "node-a:1,node-b:1", "-n", 2)
    done = launch(environment, "mpiexec.hydra", *options, *MEASURE, LLEM_JOB=store.parent.name, **HERE)
    check_one(done, store, ranks=2, launcher="pmi")


@needs("mpiexec.hydra")
def test_ranks_of_unknown_machines_are_refused(environment: dict[str, str], store: Path) -> None:
    """hydra does not say where rank 0 is: each says what to set, and nothing is measured."""
    options = ("-launcher", "fork", "-hosts", "node-a:1,node-b:1", "-n", 2)
    done = launch(environment, "mpiexec.hydra", *options, *MEASURE)
    assert done.returncode == 2
    assert "LLEM_RENDEZVOUS=HOST" in done.stderr
    assert not segments(store)


@pytest.mark.torch
def test_torchrun_starts_one_experiment(environment: dict[str, str], store: Path) -> None:
    """Two processes of one machine."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = launch(environment, *torchrun, "--no-python", *MEASURE)
    check_one(done, store, ranks=2, launcher="torchrun")


def test_pods_of_an_indexed_job_measure_one_experiment(environment: dict[str, str], store: Path) -> None:
    """Kubernetes gives each its index; the size is passed beside it."""
    variables = {**environment, **HERE, "LLEM_SIZE": "2", "LLEM_JOB": store.parent.name}
    second = subprocess.Popen(MEASURE, env={**variables, "JOB_COMPLETION_INDEX": "1"})
    first = launch(variables, *MEASURE, JOB_COMPLETION_INDEX="0")
    assert second.wait(LIMIT_S) == 0
    check_one(first, store, ranks=2, launcher="kubernetes")
