"""Every wrong input is one line that says what, found, expected and what to try; nothing is left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SIMULATED, Run, mostly_slow

WRONG = {
    "model folder that is not there": (["--model", "./no/such/model"], "./no/such/model"),
    "unknown key": (["--set", "engine.batch_sise=3"], "did you mean engine.batch_size?"),
    "unknown section": (["--set", "motor.name=x"], "unknown plan key motor"),
    "wrong type": (["--set", "engine.batch_size=many"], "engine.batch_size"),
    "value out of range": (["--set", "engine.batch_size=0"], "engine.batch_size"),
    "setting without a value": (["--set", "engine.batch_size"], "key=value"),
    "a table where a value is": (["--set", "name=x", "--set", "name.deep=1"], "name"),
    "unknown engine": (["--engine", "vllm"], "engine.name"),
    "plan that is not there": (["nowhere.toml"], "nowhere.toml"),
    "label without a value": (["--label", "gpu"], "key=value"),
    "no such GPU": (["--engine", "simulated", "--gpu", "7"], "NVIDIA driver"),
    "a GPU without a name": ([*SIMULATED, "--gpu", ""], "separated by commas"),
    "a simulated GPU twice": ([*SIMULATED, "--gpu", "1,0,1"], "a GPU is named twice: found 1,0,1"),
    "a simulated GPU that is no index": ([*SIMULATED, "--gpu", "GPU-x"], "an index"),
    "a meter that cannot be read": (["--engine", "simulated", "--meter", "nvml"], "NVIDIA driver"),
    "GPUs of a model on the CPU": (
        ["--gpu", "0,1", "--meter", "nvml", "--set", "engine.device=cpu"],
        "engine.device=cpu",
    ),
    "a GPU meter of a model on the CPU": (
        ["--engine", "simulated", "--meter", "nvml", "--set", "engine.device=cpu"],
        "no GPU is used",
    ),
    "no program behind --": ([*SIMULATED, "--"], "nothing behind it"),
    "fewer prompts than workers": (
        [*SIMULATED, "--workers", "3", "--set", "workload.requests=2"],
        "workload.requests",
    ),
    "prompt file that is not there": (
        [*SIMULATED, "--set", "workload.source=file", "--set", "workload.path=p.jsonl"],
        "p.jsonl",
    ),
    "remote code on a branch": (
        ["--model", "a/b", "--set", "model.trust_remote_code=true"],
        "40 hexadecimal digits",
    ),
}


@pytest.mark.parametrize(("arguments", "told"), mostly_slow(WRONG.values(), every=3), ids=WRONG.keys())
def test_wrong_input_is_one_line(arguments: list[str], told: str, llem: Run, store: Path) -> None:
    """Exit status 2, one line, no traceback, no store."""
    done = llem("measure", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not store.exists()


@pytest.mark.parametrize(
    "name",
    [
        "fewer prompts than workers",
        "prompt file that is not there",
        "model folder that is not there",
        "a GPU without a name",
        "GPUs of a model on the CPU",
    ],
)
@pytest.mark.slow
def test_a_dry_run_refuses_what_a_measurement_would(name: str, llem: Run, store: Path) -> None:
    """A plan that is printed is one that can be measured, as far as this machine's devices are not asked."""
    arguments, told = WRONG[name]
    done = llem("measure", *arguments, "--dry-run")
    assert done.returncode == 2 and told in done.stderr
    assert done.stdout == "" and not store.exists()


@pytest.mark.slow
@pytest.mark.torch
def test_a_dry_run_refuses_options_that_generate_would_not_take(llem: Run) -> None:
    """The key that was probably meant is named."""
    done = llem("measure", "--dry-run", "--set", "generation.top_q=1")
    assert done.returncode == 2 and done.stdout == ""
    assert "did you mean generation.top_k" in done.stderr or "generation.top_p" in done.stderr


@pytest.mark.torch
def test_an_unknown_model(llem: Run, store: Path) -> None:
    """The preset that was probably meant is named, and nothing is left behind."""
    done = llem("measure", "--model", "tiny-lama")
    assert (done.returncode, done.stderr.count("\n"), store.exists()) == (2, 1, False)
    assert "did you mean the preset tiny-llama" in done.stderr


def test_a_plan_that_is_not_toml(llem: Run, tmp_path: Path, store: Path) -> None:
    """The error names the file, the line and the column."""
    plan = tmp_path / "plan.toml"
    plan.write_text("[engine\n")
    done = llem("measure", plan)
    assert (done.returncode, store.exists()) == (2, False)
    assert "plan.toml is not TOML" in done.stderr and "line 1" in done.stderr


def test_what_the_log_cannot_hold(llem: Run, tmp_path: Path, store: Path) -> None:
    """A command of more than a megabyte and labels without end are refused before anything is made, not after the work is done."""
    plan = tmp_path / "plan.toml"
    plan.write_text("[labels]\n" + "".join(f"n{number} = '{'x' * 900}'\n" for number in range(1_000)))
    for arguments, told in (
        (["--meter", "simulated", "--", "true", *["x" * 100_000] * 12], "shorten the labels or the command"),
        ([plan, *SIMULATED], "labels"),
    ):
        done = llem("measure", *arguments)
        assert (done.returncode, store.exists(), done.stderr.count("\n")) == (2, False, 1)
        assert told in done.stderr


def test_a_store_that_cannot_be_written(llem: Run, tmp_path: Path) -> None:
    """A file in the store's place is refused before anything is measured."""
    (tmp_path / "file").write_text("")
    done = llem("measure", *SIMULATED, "--store", tmp_path / "file" / "store")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr and "--store" in done.stderr


def test_a_store_that_others_may_write(llem: Run, store: Path) -> None:
    """A store that the group may write is refused with the command that mends it."""
    store.mkdir()
    store.chmod(0o770)
    done = llem("measure", *SIMULATED)
    assert done.returncode == 2
    assert "chmod 700" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small file system")
def test_a_disk_that_is_nearly_full(llem: Run, tmp_path: Path) -> None:
    """A file system with too little room is refused with the figures."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        done = llem("measure", *SIMULATED, "--store", small)
    finally:
        subprocess.run(["umount", small], check=True)
    assert done.returncode == 2
    assert "nearly full" in done.stderr and "8 MiB free" in done.stderr
