"""`llem study` as a user runs it: measured, killed, resumed, extended."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from llem.store import Store
from llem.study.history import StudyHistory, read_history, study_ids
from llem.study.plan import Slot
from tests.conftest import LIMIT_S, LLEM, Run, wait_until
from tests.delays import best_of_rounds, delays

PLAN = """
[engine]
name = "simulated"
[meter]
name = "simulated"
[workload]
requests = 4
min_duration_s = 0.2
[windows]
baseline_s = 0.1
baseline_after_s = 0.0
[study]
name = "token time"
repeats = {repeats}
[study.vary]
"engine.simulated.token_ms" = {values}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Two cells, two blocks."""
    return written(tmp_path / "study.toml")


def written(path: Path, *, repeats: int = 2, values: str = "[1, 2]") -> Path:
    path.write_text(PLAN.format(repeats=repeats, values=values))
    return path


def history(store: Path) -> StudyHistory:
    """Of the only study."""
    (study_id,) = study_ids(Store(store))
    return read_history(Store(store), study_id)


def test_a_study_is_planned_before_it_is_measured(llem: Run, plan: Path, store: Path) -> None:
    """--dry-run prints cells, the order of each block and the time, twice the same, and leaves no store."""
    first, second = (llem("study", plan, "--dry-run") for _ in range(2))
    assert first.stdout == second.stdout
    assert first.stdout.splitlines()[:2] == ["cell 0: token_ms=1", "cell 1: token_ms=2"]
    assert first.stdout.endswith("4 runs, at least 5 s\n")
    of_program = llem("study", plan, "--dry-run", "--", "true")
    assert of_program.stdout.endswith("4 runs, at least 4 s\n"), "how long a program runs is not known before"
    assert not store.exists()


def test_a_time_that_no_run_fits_into_is_refused(llem: Run, plan: Path, store: Path) -> None:
    """Before anything begins, as by `llem measure`, also by --dry-run."""
    for also in ((), ("--dry-run",)):
        done = llem("study", plan, "--max-time", "1s", *also)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--max-time: found 1 s, expected more than 1.3 s, which the plan takes at least" in done.stderr
    assert llem("study", plan, "--max-time", "1m", "--dry-run").returncode == 0
    assert not store.exists()


@pytest.mark.slow
def test_a_study_ends_after_the_time_that_it_may_take(llem: Run, plan: Path, store: Path) -> None:
    """In order, with what is left; without it --resume goes on, and what is left is what its --dry-run says beside the plan too."""
    stopped = llem("study", plan, "--repeats", "9", "--max-time", "5s")
    assert stopped.returncode == 1
    assert "its time limit of 5 s" in stopped.stderr
    ended = history(store)
    assert ended.end == "interrupted"
    left = 18 - len(ended.counted())
    assert left
    for asked in ((), (plan,)):
        said = llem("study", *asked, "--resume", "@last", "--dry-run").stdout
        assert f"{left} runs" in said and ("left of 18" in said or left == 18)


def test_keys_of_the_plan_are_set_for_a_study_too(llem: Run, plan: Path, store: Path) -> None:
    """As for a single run, those of the study among them, quoted or nested in the file; one that varies cannot be set."""
    changed = (
        "workload.min_duration_s=2",
        "study.vary.engine.simulated.token_ms=[3, 4, 5]",
        "study.repeats=4",
    )
    words = [word for setting in changed for word in ("--set", setting)]
    outlook = json.loads(llem("study", plan, *words, "--dry-run", "--json").stdout)
    assert outlook["cells"] == [{"engine.simulated.token_ms": token_ms} for token_ms in (3, 4, 5)]
    assert [sorted(cells) for cells in outlook["blocks"]] == [[0, 1, 2]] * 4
    assert (outlook["runs"], outlook["runs_left"]) == (12, 12) and outlook["least_s"] > 24
    for setting, said in (
        (
            "engine.simulated.token_ms=7",
            "found a key that the study varies, expected study.vary.engine.simulated.token_ms=[...]",
        ),
        ("engine.batch_sise=7", "did you mean engine.batch_size?"),
        ("engine", "--set: found 'engine', expected key=value"),
    ):
        done = llem("study", plan, "--set", setting, "--dry-run")
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
    assert "expected PLAN.toml beside it" in llem("study", "--resume", "@last", "--set", "name=x").stderr


@pytest.mark.slow
def test_a_study_for_programs_is_brought_into_another_store(
    llem: Run, plan: Path, store: Path, tmp_path: Path
) -> None:
    """--json is one object with what `llem compare -f json` has; --collect takes the study and its runs, also where it was ended before all was measured."""
    other = tmp_path / "other"
    stopped = llem("study", plan, "--repeats", "9", "--max-time", "4s", "--json", "--collect", other)
    assert stopped.returncode == 1, stopped.stderr
    told = json.loads(stopped.stdout)
    assert told["runs"] + told["runs_left"] == 18 and "time limit" in told["stopped"]
    (study_id,) = study_ids(Store(other))
    assert told["study_id"] == study_id
    done = llem("study", "--resume", study_id, "--repeats", "9", "--set", "x=1")
    assert done.returncode == 2
    ended = llem(
        "study", plan, "--set", "study.repeats=2", "--set", "name=second", "--json", "--collect", other
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["runs"], told["runs_left"], told["stopped"]) == (4, 0, None)
    groups = told["comparison"]["groups"]
    assert (
        sorted(run for runs in groups.values() for run in runs) == sorted(Store(other).experiment_ids())[-4:]
    )
    assert told["comparison"]["study_id"] == told["study_id"] in study_ids(Store(other))
    assert llem("study", plan, "--collect", store / "inside").returncode == 2


def test_wrong_calls_of_a_study_are_refused(llem: Run, plan: Path, store: Path) -> None:
    """Without a plan, with a plan that has no study, with a study that is not there."""
    plain = plan.with_name("plain.toml")
    plain.write_text("name = 'x'\n")
    Store(store).create()
    for arguments, said in (
        ((), "expected PLAN.toml or --resume STUDY"),
        ((plain,), "plan key study: found no such table"),
        (("--resume", "@last"), "study @last: found none"),
    ):
        done = llem("study", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


@pytest.mark.slow
def test_a_study_measures_compares_and_is_extended(llem: Run, plan: Path, store: Path) -> None:
    """Every place of the schedule has its run, the cells are compared in pairs, and more repeats keep what there is."""
    done = llem("study", plan)
    assert done.returncode == 0, done.stderr
    before = history(store)
    assert (before.end, set(before.counted())) == ("completed", set(before.schedule))
    assert "token_ms=1: 2 runs; token_ms=2: 2 runs" in done.stdout
    assert "not paired" not in done.stdout
    assert llem("study", "--resume", "token time", "--repeats", "3").returncode == 0
    after = history(store)
    assert after.schedule[: len(before.schedule)] == before.schedule
    assert after.runs[: len(before.runs)] == before.runs
    assert len(after.counted()) == 6
    listed = llem("studies")
    assert listed.stdout.splitlines()[2].split()[1:] == ["token", "time", "completed", "2", "3", "6", "0"]
    rows = json.loads(llem("query", "FROM study_runs ORDER BY block, position", "-f", "json").stdout)
    assert [(row["block"], row["position"], row["cell_index"]) for row in rows if row["counted"]] == [
        tuple(slot) for slot in after.schedule
    ]
    assert len({row["cell_hash"] for row in rows}) == 2
    sql = f"SELECT pairs, ratio > 1 FROM paired_ratio('{after.study_id}', 'e2e_median_ms')"
    assert llem("query", sql, "-f", "csv").stdout.splitlines()[1:] == ["3,true"]
    sql = "SELECT name, cells, blocks, runs, counted_runs, runs_left FROM studies"
    assert llem("query", sql, "-f", "csv").stdout.splitlines()[1:] == ["token time,2,3,6,6,0"]
    repeats = json.loads(llem("query", "--saved", "repeats", "-f", "json").stdout)
    assert [row["repeats"] for row in repeats] == [3, 3]
    compared = llem("compare", "token_ms=1", "token_ms=2", "--figure", "e2e_median_ms", "-f", "csv")
    assert ",paired,higher," in compared.stdout


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@best_of_rounds
def test_a_stopped_study_goes_on_where_it_was(
    environment: dict[str, str], llem: Run, plan: Path, store: Path, sent: signal.Signals
) -> None:
    """Whichever signal ended it, every place of the schedule counts once in the end, and what was measured before stays."""
    study = subprocess.Popen(
        [LLEM, "study", plan], env=environment, start_new_session=True, stderr=subprocess.PIPE
    )
    wait_until(lambda: len(list(store.glob("log/*/worker-*"))) >= 2)
    os.kill(study.pid, sent)
    said = study.communicate(timeout=LIMIT_S)[1].decode()
    with delays():
        assert study.returncode == 130, said
    killed = history(store)
    assert killed.end == "interrupted"
    counted = killed.counted()
    with delays():
        assert 1 <= len(counted) < 4
    done = llem("study", plan, "--resume", "@last")
    assert done.returncode == 0, done.stderr
    after = history(store).counted()
    assert set(after) == set(killed.schedule)
    assert {slot: run.experiment_id for slot, run in counted.items()}.items() <= {
        slot: run.experiment_id for slot, run in after.items()
    }.items()


@pytest.mark.slow
def test_another_plan_does_not_resume_a_study(llem: Run, plan: Path, store: Path) -> None:
    """The key and both values are named, and nothing is measured."""
    llem("study", plan, "--repeats", "1")
    before = history(store)
    done = llem("study", written(plan, values="[1, 4]"), "--resume", "@last")
    assert done.returncode == 2
    assert "study.vary.engine.simulated.token_ms" in done.stderr
    assert "found [1, 4], expected [1, 2]" in done.stderr
    assert history(store) == before
    assert llem("study", "--resume", "@last", "--repeats", "2").returncode == 0
    assert (
        Slot(1, 0, before.schedule[0].cell) in history(store).counted() or len(history(store).counted()) == 4
    )
    fewer = llem("study", "--resume", "@last", "--repeats", "1")
    assert (fewer.returncode, "expected 2 or more" in fewer.stderr) == (2, True)


@pytest.mark.slow
def test_a_wrapped_command_is_studied(llem: Run, tmp_path: Path, store: Path) -> None:
    """The command is kept with the study; a run whose program fails is tried once more and does not count."""
    plan = tmp_path / "command.toml"
    plan.write_text(
        '[meter]\nname = "simulated"\n[windows]\nbaseline_s = 0.1\nbaseline_after_s = 0.0\n'
        '[study]\nrepeats = 1\n[[study.together]]\n"labels.size" = "small"\n[[study.together]]\n"labels.size" = "large"\n'
    )
    done = llem("study", plan, "--", "sh", "-c", f"mkdir {tmp_path}/first || exit 3")
    known = history(store)
    assert known.started.command[:2] == ["sh", "-c"]
    assert (done.returncode, len(known.runs), len(known.counted())) == (1, 3, 1)
    assert "failed: the program ended with exit status 3" in done.stderr
    rows = llem("query", "SELECT counted, reason FROM study_runs ORDER BY counted, attempt", "-f", "csv")
    failed = "false,the program ended with exit status 3"
    assert rows.stdout.splitlines()[1:] == [failed, failed, "true,"]
