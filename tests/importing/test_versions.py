"""Files of earlier versions of programs: what moved in them is found, and figures are the file's own."""

import gzip
import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from llem.errors import LlemError
from llem.importers.asked import Asked
from llem.importers.recording import Recording
from llem.importing import understand
from llem_events.events import Request
from tests.importing.files import FORMATS, UTC

VERSIONS = FORMATS / "versions"


def unpacked(name: str, folder: Path) -> tuple[Path, str]:
    """A file of another version, and its text."""
    written = gzip.decompress((VERSIONS / f"{name}.gz").read_bytes())
    (path := folder / name).write_bytes(written)
    return path, written.decode()


def recorded(path: Path) -> tuple[Recording, list[Request]]:
    """The one run of a file, with its requests."""
    (run,) = understand(path, asked=UTC).runs
    assert isinstance(run, Recording)
    return run, [*(run.requests or ())]


def ttft_ms(requests: list[Request]) -> float:
    """Median of those that went well."""
    return median(
        (each.first_token_ns - each.start_ns) / 1e6
        for each in requests
        if each.first_token_ns is not None and each.error is None
    )


def test_aiperf_0_5(tmp_path: Path) -> None:
    """Its lines have the medians and tokens of its summary, with the request that failed."""
    path, _ = unpacked("aiperf-0.5.0.jsonl", tmp_path)
    _, requests = recorded(path)
    summary, text = unpacked("aiperf-0.5.0.json", tmp_path)
    own = json.loads(text)
    assert ttft_ms(requests) == pytest.approx(own["time_to_first_token"]["p50"], rel=1e-6)
    assert sum(each.output_tokens for each in requests) == own["total_osl"]["avg"]
    failed = [each.http_status for each in requests if each.error]
    assert failed == [500] * round(own["error_request_count"]["avg"])
    run, _ = recorded(summary)
    assert run.work is not None and run.work.output_tokens == own["total_osl"]["avg"]


@pytest.mark.parametrize(
    ("name", "model"), [("guidellm-0.3.1", "worker.backend_model"), ("guidellm-0.5.4", "args.model")]
)
def test_guidellm_before_0_6(name: str, model: str, tmp_path: Path) -> None:
    """Times, totals and the model's name stood elsewhere."""
    path, text = unpacked(f"{name}.json", tmp_path)
    run, requests = recorded(path)
    benchmark: dict[str, Any] = json.loads(text)["benchmarks"][0]
    own = benchmark["metrics"]["time_to_first_token_ms"]["successful"]["median"]
    assert ttft_ms(requests) == pytest.approx(own, rel=1e-5)
    assert sum(each.output_tokens for each in requests) == sum(
        each["output_tokens"] for each in benchmark["requests"]["successful"]
    )
    assert [bool(each.error) for each in requests].count(True) == 1
    assert (run.model_name, *[line.source for line in run.mapping if line.column == "model_name"]) == (
        "fake",
        model,
    )


def test_a_benchmark_of_before_that_is_odd_is_refused(tmp_path: Path) -> None:
    """In one line."""
    path, text = unpacked("guidellm-0.3.1.json", tmp_path)
    document = json.loads(text)
    for odd in (None, [], "x"):
        document["benchmarks"][0]["metrics"] = odd
        path.write_text(json.dumps(document))
        with pytest.raises(LlemError, match="field"):
            understand(path, asked=UTC)


def test_sglang_0_5(tmp_path: Path) -> None:
    """Its totals, of a file in which a rate without an end is written as no JSON can."""
    path, text = unpacked("sglang-0.5.5.jsonl", tmp_path)
    own = json.loads(text)
    assert own["request_rate"] == float("inf")
    (run,) = understand(path, asked=Asked(timezone="UTC", start="2026-03-01")).runs
    assert isinstance(run, Recording) and run.work is not None
    assert (run.work.input_tokens, run.work.output_tokens, run.work.requests) == (160, 160, own["completed"])
    assert run.measurements[0].span[1] == pytest.approx(own["duration"] * 1e9)


def test_optimum_benchmark_0_6(tmp_path: Path) -> None:
    """A mean call of each target; only the throughput of decode is one of tokens: 7 further ones of 2 prompts."""
    path, text = unpacked("optimum-0.6.0.json", tmp_path)
    own = json.loads(text)
    asked = Asked(timezone="UTC", start="2026-03-01")
    runs = [run for run in understand(path, asked=asked).runs if isinstance(run, Recording)]
    spans = {run.labels["target"]: run.measurements[0].span[1] / 1e9 for run in runs}
    assert spans == pytest.approx(
        {name: own[name]["latency"]["mean"] for name in ("generate", "prefill", "decode")}
    )
    assert [run.work and run.work.output_tokens for run in runs] == [None, 14, None]
    told = [line.reason for run in runs for line in run.mapping if line.column == "total_output_tokens"]
    assert told == ["throughput is in samples/s", None, "throughput is in samples/s"]
