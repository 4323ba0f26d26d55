"""The idle baseline of one run can stand for that of another, and its age is always said."""

import json
from pathlib import Path

import pytest

from tests.conftest import QUICK, SIMULATED, Run, events_of

SLEEP = ("--", "sleep", "0.2")
METER = ("--meter", "simulated", "--set", "windows.baseline_s=0.2")


@pytest.mark.slow
def test_a_baseline_is_reused_with_its_age_and_its_origin(llem: Run, store: Path) -> None:
    """It is measured once; a run that reuses a reused one names the run which measured it."""
    assert llem("measure", *METER, *SLEEP).returncode == 0
    for _ in range(2):
        done = llem("measure", *METER, "--baseline-from", "@last", *SLEEP)
        assert done.returncode == 0, done.stderr
    first, second, third = events_of(store, "worker", "baseline_measured")
    (origin, *_) = sorted(folder.name for folder in (store / "log").iterdir())
    assert "reused_from" not in first
    assert second["reused_from"] == third["reused_from"] == origin
    assert third["age_s"] > second["age_s"] > 0.2
    assert first["devices"] == second["devices"] == third["devices"]


@pytest.mark.slow
def test_a_reused_baseline_gives_the_energy_above_idle(llem: Run, store: Path) -> None:
    """The result has the lent power and how old it is; the configuration is still the same."""
    llem("measure", *SIMULATED, *QUICK)
    done = llem("measure", *SIMULATED, *QUICK, "--baseline-from", "@last")
    assert done.returncode == 0, done.stderr
    asked = (
        "SELECT baseline_age_sec, devices.baseline_power_w, energy_adjusted_j, measurement_config_hash "
        "FROM devices JOIN experiment_results USING (experiment_id) ORDER BY start_time"
    )
    measured, reused = json.loads(llem("query", asked, "-f", "json").stdout)
    assert measured["baseline_age_sec"] == 0 and reused["baseline_age_sec"] > 0.2
    assert reused["baseline_power_w"] == measured["baseline_power_w"] > 0
    assert reused["energy_adjusted_j"] is not None
    assert reused["measurement_config_hash"] == measured["measurement_config_hash"]


@pytest.mark.slow
def test_a_baseline_that_is_not_there_is_refused(llem: Run, store: Path) -> None:
    """No store, no such run, a run without a baseline: one line each, and nothing is written."""
    nothing = llem("measure", *METER, "--baseline-from", "@last", *SLEEP)
    assert nothing.returncode == 2 and "no store" in nothing.stderr and not store.exists()
    llem("measure", *METER, "--set", "windows.baseline_s=0", *SLEEP)
    for run, said in (("19700101", "no experiment"), ("@last", "measured its idle power")):
        done = llem("measure", *METER, "--baseline-from", run, *SLEEP)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert len(list((store / "log").iterdir())) == 1


@pytest.mark.slow
def test_an_old_baseline_is_refused(llem: Run, store: Path) -> None:
    """The limit is a key of the plan; the message says how old the baseline is."""
    llem("measure", *METER, *SLEEP)
    done = llem(
        "measure", *METER, "--set", "windows.baseline_max_age_s=0.01", "--baseline-from", "@last", *SLEEP
    )
    assert done.returncode == 2 and "s old" in done.stderr
    assert len(list((store / "log").iterdir())) == 1


@pytest.mark.slow
def test_a_baseline_of_other_devices_is_refused(llem: Run, store: Path) -> None:
    """A device without a baseline is named; the run fails before the program starts."""
    llem("measure", *METER, *SLEEP)
    done = llem("measure", "--meter", "estimate", "--baseline-from", "@last", "--", "echo", "started")
    assert done.returncode == 2 and "process-" in done.stderr
    assert "started" not in done.stdout
