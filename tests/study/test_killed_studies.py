"""A study of six runs whose processes are killed at twenty random moments: what it measured counts, once."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from llem.process_tree import descendants
from llem.store import Store
from llem.study.history import StudyHistory, read_history, study_ids
from tests.conftest import LLEM, Run
from tests.study.test_study import written

KILLS = 20
MOST_STARTS = 100
LATEST_S = 4.0  # after its start or the kill before, a process is killed
VICTIMS = {"study": "study", "worker": "llem.measure.worker", "sampler": "llem.measure.sampler"}


def history(store: Path, number: int) -> StudyHistory:
    """Of the study that was started as this one."""
    return read_history(Store(store), study_ids(Store(store))[number])


def victim(study: subprocess.Popen[bytes], kind: str) -> int | None:
    """The study itself, or the process of this kind that it runs now."""
    if kind == "study":
        return study.pid
    for pid in sorted(descendants(study.pid)):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            continue
        if VICTIMS[kind] in words:
            return pid
    return None


def kill_while_it_runs(study: subprocess.Popen[bytes], chance: random.Random, kills: list[str]) -> None:
    """One process after the other, until the study ends."""
    while len(kills) < KILLS:
        try:
            study.wait(chance.uniform(0.1, LATEST_S))
        except subprocess.TimeoutExpired:
            kind = chance.choice(list(VICTIMS))
            if (pid := victim(study, kind)) is not None:
                os.kill(pid, signal.SIGKILL)
                kills.append(kind)
        else:
            return
    study.wait(300)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_killed_at_random_moments_counts_every_run_once(
    environment: dict[str, str], llem: Run, tmp_path: Path, store: Path
) -> None:
    """Study, workers and samplers die; --resume goes on from the log alone, loses no run that counted and counts none twice."""
    plan = written(tmp_path / "study.toml", repeats=3)
    chance, kills, number = random.Random(12), list[str](), 0
    counted: dict[object, str] = {}
    for _ in range(MOST_STARTS):
        resumes = ["--resume", "@last"] if len(study_ids(Store(store))) > number else [str(plan)]
        study = subprocess.Popen([LLEM, "study", *resumes], env=environment, stderr=subprocess.DEVNULL)
        kill_while_it_runs(study, chance, kills)
        if len(study_ids(Store(store))) == number:
            continue  # killed before it was begun
        known = history(store, number)
        now = {slot: run.experiment_id for slot, run in known.counted().items()}
        assert counted.items() <= now.items()
        counted = dict(now.items())
        if len(counted) == len(known.schedule):
            number, counted = number + 1, {}
            if len(kills) == KILLS:
                break
        time.sleep(0.1)
    assert len(kills) == KILLS
    assert set(kills) == VICTIMS.keys()
    for finished in range(number):
        assert len(history(store, finished).counted()) == 6
    sql = "SELECT study_id, count(*) AS runs, count(DISTINCT (block, cell_index)) AS places FROM study_runs WHERE counted GROUP BY ALL"
    rows = llem("query", sql, "-f", "csv").stdout.splitlines()[1:]
    assert [row.partition(",")[2] for row in rows] == ["6,6"] * number
