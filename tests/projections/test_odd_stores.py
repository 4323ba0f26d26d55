"""A store of one good experiment and odd ones: every command answers for the good one, and no odd one is called valid."""

import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llem.projections import catch_up, open_readonly
from llem.store import Store
from llem_events.events import ProcessCompleted
from tests.conftest import LLEM
from tests.forked import ForkedLlem
from tests.projections import odd_stores
from tests.projections.odd_stores import Odd

CASES = int(os.environ.get("LLEM_ODD_CASES", "500"))
TOGETHER = 40  # odd experiments beside one good one
SHOWN = 1 if CASES > 1000 else 4  # of these each so many-th is asked for alone
PARTS = max(1, round(CASES / 1000))  # each a test of its own: many cases on several cores
STORES = round(CASES / PARTS / TOGETHER)  # in each part
SEEN = itertools.count(1)
GOOD = "good"
OFF_BY = 0.05  # what the verdict's own thresholds let pass
SETTINGS = settings(
    # the same ones whenever all tests run; `just fuzz` asks for others
    derandomize="LLEM_ODD_CASES" not in os.environ,
    deadline=None,
    print_blob=True,
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # a failure names what was odd; making it smaller takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEW = st.lists(odd_stores.odd_experiments(), min_size=6, max_size=6)
SOME = st.lists(odd_stores.odd_experiments(), min_size=20, max_size=20)
MANY = st.lists(odd_stores.odd_experiments(), min_size=TOGETHER, max_size=TOGETHER)


def store_of(folder: Path, odd: Sequence[Odd]) -> tuple[Store, dict[str, Odd]]:
    """A store on the disk; the odd ones by their ids."""
    store = Store(folder / "store").create()
    odd_stores.write(store, Odd("nothing", odd_stores.good()), GOOD)
    named = {f"odd-{number:02}": each for number, each in enumerate(odd)}
    for experiment_id, each in named.items():
        odd_stores.write(store, each, experiment_id)
    return store, named


def commands(store: Store, folder: Path, odd: Mapping[str, Odd]) -> dict[str, list[str]]:
    """Commands that read the store, by what they are asked for."""
    asked = {
        "runs": ["runs"],
        "good": ["show", GOOD],
        "good --json": ["show", GOOD, "--json"],
        "query": ["query", "SELECT experiment_id, valid FROM experiment_results ORDER BY ALL", "-f", "csv"],
        "results": ["export", str(folder / "results.csv")],
        "raw": ["export", str(folder / "raw.json"), "--what", "raw"],
        "samples": ["export", str(folder / "samples.csv"), "--what", "samples"],
        "requests": ["export", str(folder / "requests.parquet"), "--what", "requests"],
        "rebuild --check": ["rebuild", "--check"],
        "verify": ["log", "verify"],
        **{f"show {experiment_id}": ["show", experiment_id] for experiment_id in list(odd)[::SHOWN]},
    }
    return {name: [*arguments, "--store", str(store.path)] for name, arguments in asked.items()}


def check_status(name: str, done: subprocess.CompletedProcess[str], *, refused: bool) -> None:
    """0 for all that asks for the good one; 2 or 3 where an odd one is asked for, or where data that was left out counts."""
    told = (name, done.returncode, done.stderr[-600:])
    assert "internal error" not in done.stderr, told
    assert "Traceback" not in done.stderr, told
    if name.startswith(("show odd", "verify", "log")):
        assert done.returncode in (0, 2, 3), told
    elif name.startswith("rebuild"):
        assert done.returncode in ((2, 3) if refused else (0,)), told
    else:
        assert done.returncode == 0, told


def check(odd: Sequence[Odd], forked: ForkedLlem) -> None:
    """The property."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store, named = store_of(folder, odd)
        refused = bool(catch_up(store).refused)
        with open_readonly(store) as connection:
            check_tables(connection, named)
        answers = {
            name: forked.run(arguments, environment=os.environ)
            for name, arguments in commands(store, folder, named).items()
        }
        for name, done in answers.items():
            check_status(name, done, refused=refused)
        assert f"{GOOD},true" in answers["query"].stdout
        assert "valid" in answers["good"].stdout


def check_tables(connection: duckdb.DuckDBPyConnection, odd: Mapping[str, Odd]) -> None:
    """Every experiment is in the tables, every view answers, and an odd one that is valid has the good one's figures."""
    asked = connection.execute("FROM experiment_results")
    names = [column[0] for column in asked.description or ()]
    rows = {
        row["experiment_id"]: row
        for row in (dict(zip(names, each, strict=True)) for each in asked.fetchall())
    }
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    for (view,) in views:
        connection.execute(f"FROM {view}").fetchall()
    connection.execute(f"FROM energy_between('{GOOD}', 0, 5)").fetchall()
    good = odd_stores.figures(rows[GOOD])
    assert rows[GOOD]["valid"] is True
    for experiment_id, each in odd.items():
        if rows.get(experiment_id, {}).get("valid"):
            found = odd_stores.figures(rows[experiment_id])
            apart = {name: (found[name], good[name]) for name in good if not close(found[name], good[name])}
            assert not apart, (each.what, apart)


def close(found: Any, expected: Any) -> bool:
    """Whether two figures are the same as far as any verdict can tell; a figure that is not there claims nothing."""
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=OFF_BY)
    return found is None or bool(found == expected)


@pytest.mark.slow
@given(odd=FEW)
@settings(SETTINGS, max_examples=1, database=None)
def test_a_few_odd_experiments_harm_nobody(forked: ForkedLlem, odd: list[Odd]) -> None:
    """By the program's own entry point."""
    check(odd, forked)


@pytest.mark.slow
def test_numbers_that_no_column_holds_harm_nobody(forked: ForkedLlem) -> None:
    """What tables and screens read from the body of an event may be of any size there, or no number at all."""
    by_type = {event.TYPE: event for _, event in odd_stores.UNUSUAL}
    ended = ProcessCompleted(
        process_index=0, requests=0, failed_requests=0, input_tokens=0, output_tokens=0, exit_status=0
    )
    check(
        [
            *(odd_stores.added(ended, ("exit_status",), value) for value in (2**63 - 1, "odd", [])),
            *(
                odd_stores.added(by_type["experiment_started"], ("study", name), value)
                for name in ("cell_index", "block", "position", "attempt")
                for value in (2**40, "odd")
            ),
            *(
                odd_stores.added(by_type["server_metrics_read"], (name,), value)
                for name in ("names", "times_ns", "values")
                for value in ("odd", [["odd"]], {})
            ),
        ],
        forked,
    )


@pytest.mark.slow
@pytest.mark.timeout(300 + 4 * CASES // PARTS)  # a case takes 0.3 s of CPU time
@pytest.mark.parametrize("part", range(PARTS))
@given(odd=MANY)
@settings(SETTINGS, max_examples=max(1, STORES))
def test_odd_experiments_harm_nobody(forked: ForkedLlem, odd: list[Odd], part: int) -> None:
    """Five hundred of them, or LLEM_ODD_CASES; with `-s` each store says on stderr which it is."""
    check(odd, forked)
    print(f"part {part + 1} of {PARTS}: {next(SEEN)} stores of {TOGETHER} odd cases", file=sys.stderr)


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(SOME)
@settings(SETTINGS, max_examples=1, database=None)
def test_odd_experiments_harm_no_real_program(odd: list[Odd]) -> None:
    """Every command in a process of its own, as a user runs it."""
    with tempfile.TemporaryDirectory() as temporary:
        store, named = store_of(Path(temporary), odd)
        asked = commands(store, Path(temporary), dict(list(named.items())[:3]))
        more = ["runs --json", f"show {GOOD} --events", "rebuild", "log info"]
        asked |= {name: [*name.split(), "--store", str(store.path)] for name in more}
        for name, arguments in asked.items():
            ran = subprocess.run(
                [LLEM, *arguments], capture_output=True, text=True, check=False, errors="replace"
            )
            refused = bool(catch_up(store).refused)
            check_status(name, ran, refused=refused)
