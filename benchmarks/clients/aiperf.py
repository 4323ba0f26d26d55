"""aiperf, with the counts of the server: it divides by the tokens after the first piece only where it is told these."""

import json
from pathlib import Path
from typing import Any

from benchmarks.clients.client import MODEL, Client, Told, Work


def command(programs: Path, url: str, work: Work, folder: Path) -> list[object]:
    """One run without screens."""
    rate = (
        ()
        if work.rate_per_s is None
        else ("--request-rate", work.rate_per_s, "--arrival-pattern", "constant")
    )
    return [
        *(
            programs / "aiperf",
            "profile",
            "-m",
            MODEL,
            "--url",
            url,
            "--endpoint-type",
            "chat",
            "--streaming",
        ),
        *("--tokenizer", folder / "tokenizer", "--use-server-token-count", "--per-chunk-usage"),
        *("--concurrency", work.in_flight, "--request-count", work.requests, *rate),
        *("--prompt-input-tokens-mean", 32, "--prompt-output-tokens-mean", work.tokens),
        *("--ui", "none", "--no-server-metrics", "--no-gpu-telemetry", "--artifact-dir", folder / "aiperf"),
    ]


def read(folder: Path) -> list[Told]:
    """Of its file of requests, without those that failed; it has no time at which one was due."""
    lines = (folder / "aiperf" / "profile_export.jsonl").read_text().splitlines()
    records = map(json.loads, lines)
    return [_told(record) for record in records if record.get("error") is None]


def _told(record: dict[str, Any]) -> Told:
    figures = {name: figure["value"] for name, figure in record["metrics"].items()}
    return Told(
        start_ns=record["metadata"]["request_start_ns"],
        ttft_ms=figures.get("time_to_first_token"),
        itl_ms=figures.get("inter_token_latency"),
        e2e_ms=figures["request_latency"],
        due_e2e_ms=None,
        tokens=figures["output_sequence_length"],
    )


CLIENT = Client("aiperf", "aiperf", command, read)
