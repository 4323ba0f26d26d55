"""The timeline of whole runs: of a server under load, and of two GPUs."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.export.trace_format import counters, names, slices, valid_events
from tests.measure.gpu_host import GpuHost, gpus
from tests.measure.test_serving import SERVED, SHORT

pytestmark = pytest.mark.slow  # whole runs of several seconds each


def test_the_timeline_of_a_server(llem: Run, store: Path, tmp_path: Path) -> None:
    """Every request is a slice with prefill and decode, and its tokens are in the counter."""
    measured = llem("measure", *SERVED, *SHORT, "--rate", "20")
    assert measured.returncode == 0, measured.stderr
    path = tmp_path / "served.json"
    assert llem("export", path, "--what", "timeline").returncode == 0
    events = valid_events(path)
    sql = "SELECT count(*), sum(output_tokens) FROM requests"
    requests, tokens = llem("query", sql, "-f", "csv").stdout.splitlines()[1].split(",")
    assert len(slices(events, "request ")) == len(slices(events, "decode")) == int(requests)
    (worker,) = [pid for pid, name in names(events, "process_name").items() if name.startswith("worker")]
    rates = counters(events, worker, "tokens")
    spans = [(end - begin) / 1e6 for (begin, _), (end, _) in pairwise(rates)]
    told = sum(rate * span for (_, rate), span in zip(rates, spans, strict=False))
    assert told == pytest.approx(float(tokens))


def test_the_timeline_of_two_gpus(gpu_host: GpuHost, llem: Run, tmp_path: Path) -> None:
    """Each has its counters, which have the values of its samples."""
    run = gpu_host.measure(gpus(2))
    assert run.done.returncode == 0, run.done.stderr
    path = tmp_path / "gpus.json"
    exported = llem("export", path, "--what", "timeline", "--store", run.store)
    assert exported.returncode == 0, exported.stderr
    events = valid_events(path)
    devices = [pid for pid, name in names(events, "process_name").items() if name.startswith("gpu ")]
    rows = run.query(
        "SELECT device_uuid, list(DISTINCT power_w) AS watts FROM samples GROUP BY ALL ORDER BY 1"
    )
    assert len(devices) == len(rows) == 2
    for pid, row in zip(devices, rows, strict=True):
        assert {watts for _, watts in counters(events, pid, "power")} == set(row["watts"])
        assert counters(events, pid, "sm clock") and counters(events, pid, "temperature")
