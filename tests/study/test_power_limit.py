"""A study of power limits on the simulated driver: the limit at which a token costs least is known, and is found."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LLEM
from tests.delays import best_of_rounds, delays
from tests.simulated_nvml.build import environment, has_compiler
from tests.simulated_nvml.scenario import Gpu, Scenario, constant, uuid_of

pytestmark = pytest.mark.skipif(
    not has_compiler(), reason="no C compiler: the simulated NVML cannot be built"
)
TOKEN_MS = {300: 12.0, 400: 5.0, 600: 6.0}  # of four tokens at a time, under each limit: 0.9, 0.5 and 0.9 J
BATCH = 4
CHEAPEST_W = 400
LIMIT_S = 250
PLAN = """
[engine]
name = "simulated"
[engine.simulated]
prefill_ms = 4.0
jitter = 0.05
[meter]
name = "nvml"
[workload]
requests = 16
min_duration_s = 1.6
[windows]
baseline_s = 0.1
baseline_after_s = 0.0
cooldown_max_s = 0
[study]
name = "power limit"
repeats = 3
"""
CELL = """
[[study.together]]
"devices.power_limit_w" = {limit_w}
"engine.simulated.token_ms" = {token_ms}
"""


@pytest.mark.slow
@pytest.mark.timeout(5 * LIMIT_S)
@best_of_rounds
def test_the_cheapest_limit_is_found(tmp_path: Path) -> None:
    """Every other limit costs more, with its interval; no run is called throttled, and the limit is as it was in the end."""
    driver = tmp_path / "driver"
    gpu = Gpu(uuid=uuid_of(0), curve=constant(700.0), counter_tick_ms=1.0)
    surroundings = {
        **environment(Scenario(gpus=[gpu], settings=str(driver)), tmp_path),
        "LLEM_DIR": str(tmp_path / "store"),
    }
    plan = tmp_path / "study.toml"
    plan.write_text(PLAN + "".join(CELL.format(limit_w=w, token_ms=ms) for w, ms in TOKEN_MS.items()))

    def run(*arguments: object) -> str:
        command = [LLEM, *map(str, arguments)]
        return subprocess.run(
            command, env=surroundings, capture_output=True, text=True, timeout=LIMIT_S, check=True
        ).stdout

    def rows(*arguments: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(run("query", *arguments, "-f", "json"))
        return found

    run("study", plan)
    limits = rows("--saved", "power_limits")
    assert {row["power_limit_w"]: row["runs"] for row in limits} == {400.0: 3, 300.0: 3, 600.0: 3}
    with delays():  # between batches
        assert limits[0]["power_limit_w"] == CHEAPEST_W
        assert limits[0]["high_j"] < min(row["low_j"] for row in limits[1:])
        for row in limits:
            expected_j = row["power_limit_w"] * TOKEN_MS[round(row["power_limit_w"])] / 1000 / BATCH
            assert row["mean_j"] == pytest.approx(expected_j, rel=0.2)
    study_id, reference = limits[0]["study_id"], list(TOKEN_MS).index(CHEAPEST_W)
    ratios = rows(f"FROM paired_ratio('{study_id}', 'energy_per_output_token_j', {reference})")
    assert [row["pairs"] for row in ratios] == [3, 3]
    with delays():
        assert all(row["ratio_low"] > 1 for row in ratios)
    reasons = rows("SELECT DISTINCT unnest(invalid_reasons) AS reason FROM experiment_results")
    assert not [row for row in reasons if "throttled" in row["reason"]]
    last = [line.split() for line in driver.read_text().splitlines()][-1]
    assert last[2:] == ["limit", "700000"]
