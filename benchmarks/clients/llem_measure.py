"""llem itself, the whole command: no idle power and hardly a warm-up, because the others have neither."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.clients.client import Client, Told, Work

# Time for each token after the first piece, as `itl_aiperf_*` has it: of a piece with several tokens no gap between two of them is known.
REQUESTS = """
SELECT start_ns, (first_token_ns - start_ns) / 1e6 AS ttft_ms,
    (if(len(chunk_times_ns) > 0, chunk_times_ns, token_times_ns)[-1] - first_token_ns) / 1e6
        / nullif(output_tokens - coalesce(chunk_tokens[1], 1), 0) AS itl_ms,
    (end_ns - start_ns) / 1e6 AS e2e_ms, (end_ns - arrival_ns) / 1e6 AS due_e2e_ms, output_tokens AS tokens
FROM requests WHERE window_kind = 'measurement' AND error IS NULL
"""


def command(programs: Path, url: str, work: Work, folder: Path) -> list[object]:
    """One measurement of a server that runs."""
    if work.rate_per_s is None:
        load: dict[str, Any] = {"load.concurrency": work.in_flight}
    else:
        rate = {"load.rate": work.rate_per_s, "load.arrival": "constant"}
        load = rate | {"load.max_concurrency": work.in_flight}
    plan = load | {
        "load.endpoint": "chat",
        "workload.requests": work.requests,
        "workload.min_duration_s": 0,
        "workload.output_tokens.mean": work.tokens,
        "windows.baseline_s": 0,
        "windows.baseline_after_s": 0,
        "windows.warmup_max_s": 0.1,
    }
    settings = (option for key, value in plan.items() for option in ("--set", f"{key}={value}"))
    return [programs / "llem", "measure", "--server", url, "--store", folder / "store", *settings]


def read(folder: Path) -> list[Told]:
    """Of its store."""
    asked = [
        Path(sys.executable).with_name("llem"),
        "query",
        REQUESTS,
        "--store",
        folder / "store",
        "-f",
        "json",
    ]
    return [Told(**row) for row in json.loads(subprocess.check_output(asked, stderr=subprocess.DEVNULL))]


CLIENT = Client("llem", None, command, read)
