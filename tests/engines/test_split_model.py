"""A model over two ranks of torchrun says what it says in one process, and its tokens count once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LIMIT_S, LLEM, Run, events_of, segments

pytestmark = [pytest.mark.torch, pytest.mark.slow]
KEYS = (
    "workload.min_duration_s=0",
    "workload.requests=4",
    "workload.output_tokens.mean=8",
    "workload.record_text=true",
    "windows.baseline_s=0.2",
    "windows.baseline_after_s=0.1",
    "windows.warmup_min_batches=1",
    "windows.warmup_max_batches=1",
    "engine.device=cpu",
)
RUN = ("--meter", "estimate", "--json", *(f"--set={key}" for key in KEYS))
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
SAID = "FROM requests SELECT request_id, input_tokens, output_tokens, output WHERE window_kind = 'measurement' ORDER BY ALL"


def measured(
    environment: dict[str, str], folder: Path, store: Path, *before: str, **more: str
) -> dict[str, Any]:
    """The result of measuring the model, after some command's words."""
    done = subprocess.run(
        [*before, LLEM, "measure", "--model", folder, *RUN, "--store", store, *more.values()],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.timeout(4 * LIMIT_S)
def test_a_model_over_two_ranks_says_the_same(
    environment: dict[str, str], worded_llama_folder: Path, tmp_path: Path, llem: Run
) -> None:
    """Greedy outputs, tokens and FLOPs are those of one process; energy is that of both."""
    one, two = tmp_path / "one", tmp_path / "two"
    alone = measured(environment, worded_llama_folder, one)
    split = measured(
        environment, worded_llama_folder, two, sys.executable, *TORCHRUN, parallel="--set=engine.parallel=tp"
    )
    told = [llem("query", "--store", store, SAID, "-f", "jsonl").stdout for store in (one, two)]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == 4
    for figure in ("total_requests", "total_tokens", "total_output_tokens", "total_flops"):
        assert split[figure] == alone[figure], figure
    first, second = split["process_results"]
    assert (first["group_rank"], second["group_rank"]) == (0, 1)
    assert second["inference_metrics"]["total_tokens"] == 0
    each_j = [each["energy_metrics"]["total_energy_j"] for each in (first, second)]
    assert split["total_energy_j"] == pytest.approx(sum(each_j))
    assert split["avg_tokens_per_second"] == first["inference_metrics"]["tokens_per_second"]
    codes = {reason["code"] for reason in split["invalid_reasons"]}
    assert codes <= {"too_short", "energy_estimated", "too_few_samples", "uncertainty_too_large"}
    started = events_of(two, "worker", "process_started")
    assert sorted((event["group_id"], event["group_rank"]) for event in started) == [("0", 0), ("0", 1)]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), "one process"),
        (("--model", "tiny-llama"), "random weights"),
        (("--engine", "simulated"), "engine simulated"),
    ],
)
def test_what_cannot_be_split_is_refused(
    llem: Run, store: Path, worded_llama_folder: Path, arguments: tuple[str, ...], found: str
) -> None:
    """Before anything is measured, with what to start instead."""
    model = () if "--model" in arguments else ("--model", worded_llama_folder)
    ranks = {"LLEM_RANK": "0", "LLEM_SIZE": "2", "LLEM_RENDEZVOUS": "127.0.0.1"} if arguments else {}
    done = llem("measure", *model, *arguments, "--set", "engine.parallel=tp", **ranks)
    assert done.returncode == 2
    assert found in done.stderr
    assert not segments(store)
