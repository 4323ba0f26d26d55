"""CPU time of a process tree, and the watts stated for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llem.errors import MeterError
from llem.meters.estimate import NS_PER_CLOCK_TICK, CpuTime, EstimateMeter
from llem.process_tree import descendants
from tests.conftest import wait_until

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint('done', flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process whose child has used 0.3 s of CPU and ended."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_counts_children_that_have_ended(parent: subprocess.Popen[str]) -> None:
    """The child's time is in its parent's once it has been waited for."""
    total_ns = CpuTime(parent.pid).total_ns()
    assert total_ns is not None and total_ns >= 290_000_000


def test_counts_children_that_are_running() -> None:
    """A live child belongs to the family, a grandchild too."""
    sleeper = "import time; time.sleep(600)"
    spawner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    with subprocess.Popen([sys.executable, "-c", spawner]) as process:
        wait_until(lambda: len(descendants(process.pid)) == 2)
        family = descendants(process.pid)
        assert family > {process.pid}
        for pid in family:
            os.kill(pid, 9)


def test_finds_the_family_without_the_kernels_list_of_children(tmp_path: Path) -> None:
    """Where /proc has no children files, parents are followed; a name may hold spaces and brackets."""
    for pid, parent, name in ((10, 1, "a"), (11, 10, "b) (c"), (12, 11, "d e"), (13, 1, "f")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} " + "0 " * 9 + "7 3 2 1 0 0\n")
    assert descendants(10, proc=tmp_path) == {10, 11, 12}
    assert CpuTime(10, proc=tmp_path).total_ns() == 3 * 13 * NS_PER_CLOCK_TICK


def test_energy_is_cpu_time_times_the_stated_watts(parent: subprocess.Popen[str]) -> None:
    """At 20 W a core, 0.3 s of CPU time is at least 6 J."""
    meter = EstimateMeter(watts_per_core=20.0, pid=parent.pid)
    (reading,) = meter.read()
    assert reading.energy_mj is not None and reading.energy_mj >= 5_800
    (metered,) = meter.devices()
    assert (metered.energy_source, metered.device.kind) == ("estimated", "process")
    assert "no sensor is read" in metered.missing["temperature_c"]


def test_the_end_of_the_process_is_none_and_told_once(parent: subprocess.Popen[str]) -> None:
    """A process that is gone has no CPU time any more: None, a reason, one fault."""
    meter = EstimateMeter(watts_per_core=20.0, pid=parent.pid)
    parent.kill()
    parent.wait()
    assert [(reading.energy_mj, reading.power_mw) for reading in meter.read()] == [(None, None)]
    assert meter.read_edge()[0].reason == "the process has ended"
    assert [code for _, code, _ in meter.faults()] == ["process_gone"]
    assert meter.faults() == []


def test_an_unknown_process_is_an_error() -> None:
    """Nothing can be estimated for a process that is not there."""
    with pytest.raises(MeterError, match="no process 999999999"):
        EstimateMeter(watts_per_core=20.0, pid=999_999_999)
