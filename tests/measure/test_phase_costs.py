"""An engine whose phases take what the plan says, under a power that is known: what its tokens cost is estimated, and is true."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import Run
from tests.delays import best_of_rounds, delays

IDLE_W, POWER_W = 20.0, 120.0
PREFILL_MS, TOKEN_MS, PROMPT_TOKENS, BATCH = 50.0, 5.0, 32, 4


def measured(llem: Run, power_w: float, *options: str) -> dict[str, Any]:
    """The result of batches that are all alike, and take 130 ms each."""
    plan = {
        "engine.simulated.prefill_ms": PREFILL_MS,
        "engine.simulated.token_ms": TOKEN_MS,
        "engine.batch_size": BATCH,
        "workload.input_tokens.mean": PROMPT_TOKENS,
        "workload.output_tokens.mean": 17,
        "meter.simulated.power_w": power_w,
        "windows.warmup_max_s": 0.5,
        "windows.baseline_s": 0.5,
    }
    settings = [f"--set={key}={value}" for key, value in plan.items()]
    done = llem("measure", "--engine", "simulated", "--meter", "simulated", "--json", *settings, *options)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = msgspec.json.decode(done.stdout)
    return result


@pytest.mark.slow
@best_of_rounds
def test_the_costs_of_a_known_engine_are_found(llem: Run, store: Path) -> None:
    """Its idle power is that of a run whose device used no more; each cost lies within two of its intervals, and 5 % for waits that a busy machine draws out."""
    idle = measured(llem, IDLE_W, "--set=workload.min_duration_s=0.5", "--set=workload.requests=4")
    phases = measured(llem, POWER_W, "--baseline-from", idle["experiment_id"])["phases"]
    above_w = POWER_W - IDLE_W
    truth_j = {
        "prefill": above_w * PREFILL_MS / 1000 / (BATCH * PROMPT_TOKENS),
        "decode": above_w * TOKEN_MS / 1000 / BATCH,
    }
    for phase, per_token_j in truth_j.items():
        estimate = phases[phase]
        within_j = 2 * estimate["within_j"] / estimate["tokens"] + 0.05 * per_token_j
        with delays():
            assert estimate["energy_j"] / estimate["tokens"] == pytest.approx(per_token_j, abs=within_j)
            assert estimate["within_j"] < 0.5 * estimate["energy_j"]
