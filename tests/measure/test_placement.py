"""Workers on the CPU share its cores and do not fight for them."""

import os
import subprocess
import sys

import pytest

from llem.measure.preflight import place
from llem.plan_file import resolve_plan
from tests.conftest import mostly_slow

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def nobody_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the user would stand before a share of the cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_cores_are_shared(workers: int) -> None:
    """Every worker may use its share of the cores, and at least one."""
    plan = resolve_plan(None, options={"engine.device": "cpu", "devices.workers": workers})
    threads = {placement.environment["OMP_NUM_THREADS"] for placement in place(plan)}
    assert threads == {str(max(1, CORES // workers))}


@pytest.mark.parametrize("workers", mostly_slow([CORES, 1], every=2))
@pytest.mark.slow
def test_torch_keeps_to_its_share(workers: int) -> None:
    """torch in a process of that placement uses so many threads."""
    pytest.importorskip("torch")
    plan = resolve_plan(None, options={"engine.device": "cpu", "devices.workers": workers})
    asked = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        env={**os.environ, **place(plan)[0].environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(asked.stdout) == max(1, CORES // workers)
