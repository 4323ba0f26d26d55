"""`llem compare`, on stores whose figures are chosen."""

import json
import re
import statistics
from pathlib import Path

import duckdb
import pytest
import typer

from llem.cli.compare import FailIf, fail, shortener
from llem.comparing.compared import Compared
from llem.comparing.findings import FIGURES, Findings, compare_groups
from llem.comparing.named import named_groups
from llem.errors import QueryError
from llem.plan import EnginePlan, LengthPlan, Plan, ValidityPlan, WorkloadPlan
from llem.projections.current import open_caught_up
from llem.results.comparison import adjusted, compare
from llem.store import Store
from llem_events.events import ExperimentCompleted, RequestsCompleted, StudyPlace
from tests.conftest import Run
from tests.simulated_studies import figures
from tests.world import CLOSED_S, OPENED_S, experiment, request, run_of_energy, sampler_events, worker_events

SPREAD = (0.0, 0.004, -0.006, 0.002, -0.001)  # of the energies of five blocks
OTHER_SPREAD = (0.003, -0.002, 0.001, -0.004, 0.005)
SECONDS = CLOSED_S - OPENED_S


def run_id(cell: int, block: int, *, day: str = "2") -> str:
    return f"2026010{day}-0304{cell}{block}-0123456789ab"


def measured(
    store: Store,
    cell: int,
    block: int,
    *,
    energy: float = 1.0,
    source: str = "counter",
    labels: bool = True,
    study: str | None = None,
    failure: str | None = None,
) -> str:
    """A run of one GPU that took so many times the usual energy."""
    run = run_id(cell, block, day=study[7] if study else "2")
    place = study and StudyPlace(
        study_id=study, cell_index=cell - 1, cell={"engine.batch_size": cell}, block=block, position=cell
    )
    plan = Plan(
        name=f"cell {cell}", engine=EnginePlan(batch_size=cell), validity=ValidityPlan(min_duration_s=1.0)
    )
    run_of_energy(
        store,
        energy,
        source=source,
        experiment_id=run,
        plan=plan,
        study=place or None,
        end=ExperimentCompleted(processes_completed=1, processes_failed=0, failure=failure),
        labels={"block": str(block), "cell": f"c{cell}"} if labels else None,
    )
    return run


def two_cells(folder: Path, ratio: float, **options: bool) -> Store:
    """Five blocks of two cells, the second of which takes `ratio` times the energy."""
    store = Store(folder / "store").create()
    for block, (first, second) in enumerate(zip(SPREAD, OTHER_SPREAD, strict=True)):
        measured(store, 1, block, energy=1 + first, **options)
        measured(store, 2, block, energy=ratio * (1 + second), **options)
    return store


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two cells, the second of which takes 5 % more energy; no test changes them."""
    return two_cells(tmp_path_factory.mktemp("cells"), 1.05)


def comparison(llem: Run, store: Store, *arguments: str) -> dict[str, dict[str, object]]:
    """Figure -> what was found."""
    done = llem("compare", *arguments, "-f", "json", "--store", str(store.path))
    assert done.returncode == 0, done.stderr
    (whole,) = json.loads(done.stdout)
    return {"doubts": whole["doubts"]} | {each["figure"]: each for each in whole["comparisons"]}


@pytest.mark.slow
def test_groups_are_named_by_label_plan_run_and_name(cells: Store, llem: Run) -> None:
    """A label, a key of the plan or its last part, the runs themselves and the name in the plan mean the same runs."""
    runs = [",".join(run_id(cell, block) for block in range(5)) for cell in (1, 2)]
    ways = (
        ("cell=c1", "cell=c2"),
        ("engine.batch_size=1", "engine.batch_size=2"),
        ("batch_size=1", "batch_size=2"),
        (runs[0], runs[1]),
        ("cell 1", "cell 2"),
    )
    found = [comparison(llem, cells, *groups)["total_energy_j"] for groups in ways]
    for each in found:
        del each["group"]
    assert all(each == found[0] for each in found)
    assert found[0]["ratio"] == pytest.approx(1.05, rel=0.005)
    assert (found[0]["method"], found[0]["runs"], found[0]["verdict"]) == ("paired", 5, "higher")


def test_runs_without_blocks_are_not_paired_and_it_is_said(tmp_path: Path, llem: Run) -> None:
    """Welch's test, and the line that a drift counts as a difference."""
    found = comparison(llem, two_cells(tmp_path, 1.05, labels=False), "batch_size=1", "batch_size=2")
    assert found["total_energy_j"]["method"] == "welch"
    assert any("not paired" in doubt for doubt in found["doubts"])


@pytest.mark.slow
def test_a_regression_of_five_percent_fails_and_none_does_not(
    cells: Store, tmp_path: Path, llem: Run
) -> None:
    """--fail-if worse ends with 1 for more energy, with 0 for less and for as much."""
    stores = {1.05: cells}
    for ratio in (1.0, 0.95):
        (folder := tmp_path / str(ratio)).mkdir()
        stores[ratio] = two_cells(folder, ratio)
    for ratio, status in ((1.05, 1), (1.0, 0), (0.95, 0)):
        store = stores[ratio]
        done = llem("compare", "cell=c1", "cell=c2", "--fail-if", "worse", "--store", str(store.path))
        assert done.returncode == status, done.stdout
        assert ("llem: worse: total_energy_j of cell=c2" in done.stderr) == bool(status)


def status_of_a_study(number: int, ratio: float) -> int:
    """What --fail-if worse makes of a simulated study of five blocks whose second cell takes so many times the energy."""
    judged = adjusted([compare(*figures(number, ratios=(1.0, ratio)), paired=True)])[0]
    found = Compared("cell=c2", FIGURES["total_energy_j"], judged, None, None, None, [])
    try:
        fail(Findings([], [found], {}, [], None), FailIf.WORSE)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def test_fail_if_worse_finds_five_percent_and_invents_none() -> None:
    """In simulated time, on a machine that drifts: of 200 studies status 1 in at least 95 of 100 with the regression, in at most 5 without."""
    with_it, without = (
        statistics.fmean(status_of_a_study(number, ratio) for number in range(200)) for ratio in (1.05, 1.0)
    )
    assert with_it >= 0.95
    assert without <= 0.05


def test_two_runs_of_each_have_an_interval_and_a_warning(cells: Store, llem: Run) -> None:
    """It is shown, and that three are the least stands beside it."""
    groups = [f"{run_id(cell, 0)},{run_id(cell, 1)}" for cell in (1, 2)]
    done = llem("compare", *groups, "--figure", "total_energy_j", "-f", "md", "--store", cells.path)
    assert re.search(r"\| energy \| 1\.0\d\d \[\d\.\d+, \d\.\d+\] \| .*; 3 runs are the least", done.stdout)


def test_what_is_mixed_is_named(tmp_path: Path, llem: Run) -> None:
    """Energies of different sources stand above the table, and a run that is alone has no interval."""
    store = Store(tmp_path / "store").create()
    measured(store, 1, 0)
    measured(store, 2, 0, source="integrated")
    done = llem("compare", "cell=c1", "cell=c2", "--store", str(store.path))
    assert (
        "warning: energy comes from different sources: cell=c1: counter; cell=c2: integrated" in done.stdout
    )
    assert "unclear; one run each" in done.stdout
    assert "engine.batch_size: 1 | 2" in done.stdout


@pytest.mark.slow
def test_energy_that_no_sensor_told_is_called_so(tmp_path: Path, llem: Run) -> None:
    """In every line with an energy, of the reference too; one that a sensor told has no word beside it."""
    store = Store(tmp_path / "store").create()
    for cell, source in enumerate(("estimated", "estimated", "counter"), start=1):
        measured(store, cell, 0, source=source)
    done = llem("compare", "cell=c1", "cell=c2", "cell=c3", "-f", "md", "--store", store.path)
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| energy", "| mean power"))]
    labels = {row.split(" | ")[1]: row.split(" | ")[-1] for row in rows}
    assert len(rows) == 9
    assert labels["cell=c1"] == labels["cell=c2"] == "estimated |"
    assert "counter, estimated" in labels["cell=c3"]
    found = comparison(
        llem, store, "cell=c1", "cell=c2", "--figure", "total_energy_j", "--figure", "duration_sec"
    )
    sources = [found[name]["energy_source"] for name in ("total_energy_j", "duration_sec")]
    assert sources == ["estimated", None]


@pytest.mark.slow
def test_runs_that_did_other_work_are_not_compared_as_a_whole(tmp_path: Path) -> None:
    """Joules and seconds of a run that served twice as many requests say nothing; asked for by name, they are shown with a warning."""
    store = Store(tmp_path / "store").create()
    for cell, count in ((1, 5), (2, 10)):
        requests = [request(n, OPENED_S + 0.6 * n) for n in range(count)]
        experiment(store, experiment_id=run_id(cell, 0), worker=worker_events(requests=requests))
    members = {"a": [run_id(1, 0)], "b": [run_id(2, 0)]}
    with open_caught_up(store, lambda line: None) as tables:
        usual = compare_groups(tables, members)
        asked = compare_groups(tables, members, figures=["total_energy_j"])
        other = compare_groups(tables, members, figures=["e2e_median_ms"])
    assert not {"total_energy_j", "duration_sec"} & {each.figure.name for each in usual.compared}
    work = "the work is not the same: 5 requests a run of a, 10 of b: energy and duration of whole runs"
    assert f"{work} are not compared" in usual.doubts
    assert f"{work} do not tell which takes less" in asked.doubts
    assert not any("work" in doubt for doubt in other.doubts)


def test_three_groups_stand_in_one_table(tmp_path: Path, llem: Run) -> None:
    """Each is compared with the first, and p counts for all of them."""
    store = two_cells(tmp_path, 1.05)
    for block, spread in enumerate(SPREAD):
        measured(store, 3, block, energy=0.5 * (1 - spread))
    done = llem(
        *("compare", "cell=c1", "cell=c2", "cell=c3", "--figure", "total_energy_j", "-f", "csv"),
        *("--store", str(store.path)),
    )
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["group", "cell=c2", "cell=c3"]
    assert [("higher" in line, "lower" in line) for line in lines[1:]] == [(True, False), (False, True)]


@pytest.mark.slow
def test_a_run_far_from_its_repeats_is_marked_and_kept(tmp_path: Path, llem: Run) -> None:
    """In a line, in the column `outliers` and in the macro of that name; all five runs count."""
    store = Store(tmp_path / "store").create()
    for block, (spread, other) in enumerate(zip(SPREAD, (*SPREAD[:4], 0.3), strict=True)):
        measured(store, 1, block, energy=1 + spread)
        measured(store, 2, block, energy=1 + other)
    found = comparison(llem, store, "cell=c1", "cell=c2", "--figure", "total_energy_j")
    assert f"cell=c2: {run_id(2, 4)} is far from the other runs in energy" in found["doubts"]
    energy = found["total_energy_j"]
    assert (energy["outliers"], energy["runs"]) == ([run_id(2, 4)], 5)
    sql = "SELECT experiment_id, value > median_value FROM outliers('total_energy_j') WHERE outlier"
    rows = llem("query", sql, "-f", "csv", "--store", store.path).stdout.splitlines()[1:]
    assert rows == [f"{run_id(2, 4)},true"]


def test_ids_are_as_short_as_the_store_lets_them_be(tmp_path: Path) -> None:
    """Down to the second; longer where two runs were started in one, and those of other stores stay whole."""
    store = Store(tmp_path / "store").create()
    for run in ("20260102-030405-aa1111111111", "20260102-030405-aa2222222222", run_id(1, 0)):
        (store.log_path / run).mkdir()
    text = f"{run_id(1, 0)}: 20260102-030405-aa2222222222,20260102-030405-aa1111111111; {run_id(2, 0)}"
    short = shortener(store)(text)
    assert short == f"20260102-030410: 20260102-030405-aa2,20260102-030405-aa1; {run_id(2, 0)}"


def test_a_figure_that_was_not_measured_is_named_to_whoever_waits_for_a_worse_one(
    cells: Store, llem: Run
) -> None:
    """Status 0, as nothing got worse, and never in silence."""
    groups = ("cell=c1", "cell=c2", "--figure", "energy_cpu_j")
    done = llem("compare", *groups, "--fail-if", "worse", "--store", str(cells.path))
    assert done.returncode == 0
    assert "llem: cannot be judged: energy_cpu_j of cell=c2: not measured in every run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cell=c1",), "groups to compare: found 1"),
        (("cell=c1", "cell=c9"), "expected a value of cell: c1, c2"),
        (("cell=c1", "nothing=1"), "neither a label nor a key of any plan"),
        (("cell=c1", "block=1"), "expected a run in one group"),
        (("cell=c1", "cell=c2", "--figure", "joules"), "figure joules: found no such number"),
        (("cell=c1", "cell=c2", "--figure", "total_energy"), "did you mean total_energy_j?"),
        (
            ("cell=c1", "no such run"),
            "found no experiment, expected an id, a prefix of it, a name, @last, or KEY=VALUE",
        ),
        (("cell=c1", ","), "expected RUN, RUN,RUN or KEY=VALUE"),
        (("cell=c1", "cell=c2", "--in", "s", "--all"), "--in and --all: found both"),
        (("cell=c1", "cell=c2", "--in", "s"), "study s: found none"),
        (("cell 1", "cell 2", "--all"), "--all: found no group KEY=VALUE"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    cells: Store, llem: Run, arguments: tuple[str, ...], said: str
) -> None:
    """Exit status 2 and one line that says what was found and expected."""
    done = llem("compare", *arguments, "--store", str(cells.path))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, duckdb.DuckDBPyConnection]:
    """Two studies of two cells, the newer with a failed run, and two runs of none; no test changes them."""
    store = Store(tmp_path_factory.mktemp("studies") / "store").create()
    for cell in (1, 2):
        measured(store, cell, 0)
        for block in (0, 1):
            measured(store, cell, block, study="2026010300")
            measured(
                store, cell, block, study="2026010400", failure="sampler" if (cell, block) == (1, 0) else None
            )
    return store, open_caught_up(store, lambda line: None)


@pytest.mark.parametrize(
    ("written", "scope", "runs"),
    [
        ("batch_size=1", {}, [run_id(1, 1, day="4")]),
        ("engine.batch_size=1", {"within": "2026010300"}, [run_id(1, block, day="3") for block in (0, 1)]),
        (
            "batch_size=2",
            {"everywhere": True},
            [run_id(2, block, day=day) for day, block in ("20", "30", "31", "40", "41")],
        ),
        ("name=cell 1", {}, [run_id(1, block, day=day) for day, block in ("20", "30", "31", "40", "41")]),
        (run_id(1, 0, day="3"), {}, [run_id(1, 0, day="3")]),
    ],
)
def test_a_key_is_looked_for_in_the_newest_study_that_varies_it(
    studies: tuple[Store, duckdb.DuckDBPyConnection], written: str, scope: dict[str, str], runs: list[str]
) -> None:
    """In its runs that count; elsewhere where that is asked for, or where no study varies it."""
    store, tables = studies
    assert named_groups(tables, store, [written], **scope) == {written: runs}


def test_groups_of_one_study_say_so_and_runs_that_failed_are_named(
    studies: tuple[Store, duckdb.DuckDBPyConnection],
) -> None:
    """Pairs of the blocks that both have, and the study above the table."""
    store, tables = studies
    found = compare_groups(tables, named_groups(tables, store, ["batch_size=1", "batch_size=2"]))
    assert found.study_id == "2026010400"
    named = named_groups(tables, store, ["batch_size=1", "batch_size=2"], everywhere=True)
    everything = compare_groups(tables, named)
    assert everything.study_id is None
    failed = f"{run_id(1, 0, day='4')} (sampler)"
    assert any("left out, because it failed" in doubt and failed in doubt for doubt in everything.doubts)


def test_a_study_without_a_run_that_counts_is_refused(
    studies: tuple[Store, duckdb.DuckDBPyConnection],
) -> None:
    """Nothing is compared in its place."""
    store, tables = studies
    with pytest.raises(QueryError, match="found no run that counts"):
        named_groups(tables, store, ["batch_size=1"], within="2026010900")


def test_sources_that_are_mixed_alike_in_both_groups_are_named_too(tmp_path: Path) -> None:
    """Not only what tells the groups apart."""
    store = Store(tmp_path / "store").create()
    for cell in (1, 2):
        for block, source in enumerate(("counter", "integrated")):
            measured(store, cell, block, source=source)
    with open_caught_up(store, lambda line: None) as tables:
        found = compare_groups(tables, named_groups(tables, store, ["cell=c1", "cell=c2"]))
    sources = "cell=c1: counter, integrated; cell=c2: counter, integrated"
    assert f"energy comes from different sources: {sources}" in found.doubts


def of_lengths(store: Store, prompt: int, answer: int, block: int) -> None:
    """A run in which a token of a prompt takes 0.05 J above idle, an output token 2 J, idling 50 W, and a little by chance."""
    requests = [request(n, OPENED_S + 2 * n, tokens=answer, input_tokens=prompt) for n in range(10)]
    energy_j = 10 * (0.05 * prompt + 2.0 * answer) * (1 + SPREAD[block]) + 50.0 * SECONDS
    experiment(
        store,
        experiment_id=f"20260102-0304{len(store.experiment_ids()):02}-0123456789ab",
        plan=Plan(
            name=f"{prompt} {answer}",
            workload=WorkloadPlan(
                input_tokens=LengthPlan(mean=prompt), output_tokens=LengthPlan(mean=answer)
            ),
        ),
        labels={"block": str(block)},
        worker=worker_events(counter_j=(1_000.0, 1_000.0 + energy_j), requests=requests),
        sampler=sampler_events(power_w=lambda _: energy_j / SECONDS),
    )


@pytest.mark.slow
def test_runs_of_different_lengths_tell_what_a_token_costs(tmp_path: Path, llem: Run) -> None:
    """A line above the table, the three costs with intervals in JSON, and nothing where other things differ too."""
    store = Store(tmp_path / "store").create()
    lengths = ((8, 4), (400, 4), (8, 20))
    for block in range(2):
        for prompt, answer in lengths:
            of_lengths(store, prompt, answer, block)
    groups = [f"{prompt} {answer}" for prompt, answer in lengths]
    done = llem("compare", *groups, "-f", "json", "--store", store.path)
    costs = json.loads(done.stdout)[0]["costs"]
    assert [costs[name]["value"] for name in ("input_token_j", "output_token_j", "idle_w")] == pytest.approx(
        [0.05, 2.0, 50.0], rel=0.01
    )
    assert costs["r2"] > 0.99
    said = llem("compare", *groups, "--store", store.path).stdout
    assert "above idle a prompt token 0.0" in said and "(regression over 6 runs, R2 " in said


def test_nothing_is_said_of_tokens_where_other_things_differ(cells: Store, llem: Run) -> None:
    """Batch sizes are no lengths."""
    done = llem("compare", "batch_size=1", "batch_size=2", "-f", "json", "--store", str(cells.path))
    assert json.loads(done.stdout)[0]["costs"] is None


def test_one_run_each_has_an_interval_within_the_runs(llem: Run, tmp_path: Path) -> None:
    """From the means of ten parts of each run's requests; it is called so, decides nothing, and a run that drifts is named."""
    store = Store(tmp_path / "store").create()
    for cell, slower in ((1, 0), (2, 1)):
        answers = (
            [4 + slower + (7 * n) % 5 for n in range(30)] if cell == 1 else [5 + n // 10 for n in range(30)]
        )
        requests = [request(n, OPENED_S + 0.6 * n, tokens=answer) for n, answer in enumerate(answers)]
        batches = [(CLOSED_S - 1, RequestsCompleted(window="measurement", requests=requests))]
        experiment(store, experiment_id=run_id(cell, 0), worker=worker_events(batches=batches))
    found = comparison(llem, store, run_id(1, 0), run_id(2, 0))
    mean = found["e2e_mean_ms"]
    assert mean["ratio_low"] is None and mean["verdict"] == "unclear"
    assert mean["within_run_low"] < mean["ratio"] < mean["within_run_high"]  # type: ignore[operator]
    assert found["total_energy_j"]["within_run_low"] is None
    assert any(f"{run_id(2, 0)} drifts" in doubt for doubt in found["doubts"])
    assert not any(f"{run_id(1, 0)} drifts" in doubt for doubt in found["doubts"])
    screen = llem("compare", run_id(1, 0), run_id(2, 0), "--store", store.path).stdout
    assert "within the runs [" in screen


def test_a_figure_of_a_site_is_compared_by_factors(cells: Store, llem: Run, tmp_path: Path) -> None:
    """As the energy is, where the factors are one for both; where one is missing it is named."""
    path = tmp_path / "site.toml"
    path.write_text("[site]\npue = 1.5\nsource = 'S'\ndate = '2025'\n")
    chosen = (
        "--figure",
        "total_energy_j",
        "--figure",
        "facility_energy_per_1000_tokens_j",
        "--figure",
        "carbon_g",
    )
    found = comparison(llem, cells, "cell=c1", "cell=c2", *chosen, "--factors", str(path))
    site = found["facility_energy_per_1000_tokens_j"]
    assert site["ratio"] == pytest.approx(found["total_energy_j"]["ratio"])
    assert site["energy_bound"] == found["total_energy_j"]["energy_bound"]
    assert (site["unit"], site["verdict"]) == ("J", "higher")
    assert found["carbon_g"]["ratio"] is None
    assert any(doubt.startswith("carbon_g: not given: g_per_kwh") for doubt in found["doubts"])
