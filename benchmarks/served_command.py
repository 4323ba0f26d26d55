"""What a whole `llem measure --server URL` takes beside its window: CPU time from its start to its end less that in the window, and the memory of its load process.

Its start, idle power, warm-up with the real load, drain, the result from the log and the screen are all in it; the server, a fake one in a process of its own,
is not. The load is 16 streams of 128 tokens, 50 ms and then 10 ms for each, for 20 s. The CPU time of the command and all below it is read 20 times a second from
/proc, so that the window's part of it can be told afterwards by the times in the log.

    python -m benchmarks.served_command
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from llem.process_tree import descendants
from llem.units import NS_PER_S
from llem_events import SegmentReader, UnknownEvent, unpack
from llem_events.events import Event, LoadCompleted, WindowClosed, WindowOpened
from tests.load.runs import serving

ROUNDS = 3
PERIOD_S = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
PLAN = (
    *("--meter", "simulated", "--concurrency", "16", "--set", "workload.requests=16"),
    *("--set", "workload.min_duration_s=20", "--set", "workload.output_tokens.mean=128"),
)


def cpu_s(pid: int) -> float:
    """Of a process and its threads, and of the children that it has waited for; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def watched(command: list[str], store: Path) -> tuple[list[int], list[float]]:
    """When, and how much CPU time the command had used until then, from its start to its end."""
    environment = {**os.environ, "LLEM_DIR": str(store)}
    at_ns, used_s = [time.monotonic_ns()], [0.0]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            at_ns.append(time.monotonic_ns())
            used_s.append(sum(map(cpu_s, (process.pid, *descendants(process.pid)))))
            time.sleep(PERIOD_S)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    at_ns.append(time.monotonic_ns())
    # a process that is gone before it is waited for is missed for a moment
    return at_ns, list(np.maximum.accumulate([*used_s, usage.ru_utime + usage.ru_stime]))


def told(store: Path, role: str) -> list[tuple[int, Event | UnknownEvent]]:
    """What the processes of a role wrote, and when."""
    (path,) = store.glob(f"log/*/{role}*.events.zst")
    with SegmentReader(path) as reader:
        return [
            (envelope.at_ns, unpack(envelope))
            for block in reader.blocks()
            for envelope in reader.events(block)
        ]


def measure(url: str) -> tuple[float, float, float]:
    """CPU seconds outside of the window and in it, and the most memory of the load process in MB."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        llem = str(Path(sys.executable).with_name("llem"))
        at_ns, used_s = watched([llem, "measure", "--server", url, *PLAN], store)
        edges = [
            at
            for at, event in told(store, "worker")
            if isinstance(event, WindowOpened | WindowClosed) and event.kind == "measurement"
        ]
        peaks = [
            event.peak_memory_bytes or 0
            for _, event in told(store, "load")
            if isinstance(event, LoadCompleted)
        ]
    opened_s, closed_s = np.interp(edges, at_ns, used_s)
    assert (edges[1] - edges[0]) / NS_PER_S > 19
    return used_s[-1] - (closed_s - opened_s), closed_s - opened_s, max(peaks) / 2**20


def main() -> None:
    """Print the middle of three rounds."""
    with serving(ttft_ms=50, chunk_ms=10) as url:
        rounds = [measure(url) for _ in range(ROUNDS)]
    outside_s, inside_s, peak_mb = (statistics.median(each) for each in zip(*rounds, strict=True))
    line = {"benchmark": "served_command", "ours": outside_s, "unit": "CPU s outside of the window"}
    print(json.dumps(line | {"in_window": inside_s, "peak_mb": peak_mb, "rounds": rounds, "n": ROUNDS}))


if __name__ == "__main__":
    main()
