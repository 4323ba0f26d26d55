"""guidellm, as it comes."""

import json
from pathlib import Path
from typing import Any

from benchmarks.clients.client import MODEL, Client, Told, Work


def command(programs: Path, url: str, work: Work, folder: Path) -> list[object]:
    """One run without screens."""
    if work.rate_per_s is None:
        profile = f"kind=concurrent,streams={work.in_flight}"
    else:
        profile = f"kind=constant,rate={work.rate_per_s},max_concurrency={work.in_flight}"
    return [
        *(programs / "guidellm", "run", "--backend", f"kind=openai_http,target={url},model={MODEL}"),
        *("--profile", profile, "--constraint", f"kind=max_requests,count={work.requests}"),
        *("--tokenizer", f"kind=hf_auto,model={folder / 'tokenizer'}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={work.tokens}"),
        *("--output", f"kind=json,path={folder / 'guidellm.json'}", "--disable-console"),
    ]


def read(folder: Path) -> list[Told]:
    """Of the requests in its report."""
    (benchmark,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    return [_told(request) for request in benchmark["requests"]["successful"]]


def _told(request: dict[str, Any]) -> Told:
    return Told(
        start_ns=request["request_start_time"] * 1e9,
        ttft_ms=request["time_to_first_token_ms"],
        itl_ms=request["inter_token_latency_ms"],
        e2e_ms=request["request_latency"] * 1e3,
        due_e2e_ms=request["request_scheduled_latency"] * 1e3,
        tokens=request["output_tokens"],
    )


CLIENT = Client("guidellm", "guidellm", command, read, {"HF_HUB_OFFLINE": "1"})
