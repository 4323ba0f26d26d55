"""What a model really was and did stands in the tables: attention, cache, chunks, doubtful weights, unknown FLOPs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, needs

pytestmark = [pytest.mark.slow, pytest.mark.torch, needs("transformers")]
QUICK = (
    *("--set=workload.requests=2", "--set=workload.min_duration_s=0", "--set=workload.output_tokens.mean=6"),
    *("--set=windows.baseline_s=0", "--set=windows.baseline_after_s=0", "--set=engine.device=cpu"),
    *("--set=windows.warmup_min_batches=1", "--set=windows.warmup_max_batches=1"),
)


@pytest.fixture
def rows(llem: Run) -> Callable[[str], list[dict[str, Any]]]:
    """Answers a query as rows."""

    def ask(sql: str) -> list[dict[str, Any]]:
        done = llem("query", "-f", "json", sql)
        assert done.returncode == 0, done.stderr
        answer: list[dict[str, Any]] = json.loads(done.stdout)
        return answer

    return ask


def test_beams_and_attention_are_in_the_tables(
    llem: Run, rows: Callable[[str], list[dict[str, Any]]]
) -> None:
    """Chunks instead of token times, the tokens of all beams, and what was used, from plan to tables."""
    options = ("--set=generation.num_beams=2", "--set=model.load.attn_implementation=eager")
    done = llem("measure", *QUICK, *options)
    assert done.returncode == 0, done.stderr
    requests = rows(
        "select token_times_ns, chunk_tokens, tokens_computed from requests where window_kind = 'measurement'"
    )
    assert requests == [{"token_times_ns": [], "chunk_tokens": [6], "tokens_computed": 12}] * 2
    used = rows("select attention, cache, compiled, quantization, generation from processes")
    assert used[0] | {"generation": None} == {
        "attention": "eager",
        "cache": "DynamicCache",
        "compiled": False,
        "quantization": "none",
        "generation": None,
    }
    assert '"num_beams":2' in str(used[0]["generation"]).replace(" ", "").replace("'", '"')
    assert rows("select attention, quantization from raw_process_results") == [
        {"attention": "eager", "quantization": "none"}
    ]


def test_doubts_about_a_model_are_warnings(
    llem: Run, rows: Callable[[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A model that lacks a weight, and whose FLOPs nobody knows, is refused, or measured and labelled with both."""
    import safetensors.torch

    from tests.engines.tiny_models import tiny_model

    folder = tmp_path / "model"
    tiny_model("mixtral").save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors.pop("lm_head.weight")
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    refused = llem("measure", "--model", folder, *QUICK)
    assert refused.returncode == 2
    assert "missing from its files" in refused.stderr and "lm_head.weight" in refused.stderr
    done = llem("measure", "--model", folder, "--set=model.allow_missing=true", *QUICK)
    assert done.returncode == 0, done.stderr
    warnings = {row["code"]: row["text"] for row in rows("select code, text from warnings")}
    assert "lm_head.weight" in warnings["weights_doubtful"]
    assert "mixture of experts" in warnings["flops_unknown"]
    assert rows("select total_flops from experiment_results where status = 'completed'") == [
        {"total_flops": None}
    ]
