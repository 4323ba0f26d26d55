"""`llem compare` on many studies of a simulated machine that drifts, through log and tables."""

import pytest

from llem.comparing.findings import compare_groups
from llem.comparing.named import named_groups
from llem.plan import EnginePlan, Plan, ValidityPlan
from llem.projections.current import open_caught_up
from llem.results.comparison import compare
from llem.store import Store
from llem_events.events import StudyPlace
from tests.conftest import Run
from tests.simulated_studies import figures
from tests.world import begun_study, run_of_energy

# Numbers of studies; in the latter the second cell takes 5 % more energy.
EQUAL, WORSE = range(100, 120), range(120, 140)
GROUPS = ("batch_size=1", "batch_size=2")
FIGURE = "total_energy_j"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # 400 experiments are written and read


def study_id(number: int) -> str:
    return f"20260102-030405-{number:012x}"


def energies(number: int) -> list[list[float]]:
    """Of both cells, block after block."""
    return figures(number, ratios=(1.0, 1.05 if number in WORSE else 1.0))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All studies, ten runs each; no test changes them."""
    store = Store(tmp_path_factory.mktemp("studies") / "store").create()
    for number in (*EQUAL, *WORSE):
        begun_study(store, study_id(number))
        for cell, blocks in enumerate(energies(number)):
            plan = Plan(engine=EnginePlan(batch_size=cell + 1), validity=ValidityPlan(min_duration_s=1.0))
            for block, energy in enumerate(blocks):
                place = StudyPlace(
                    study_id=study_id(number),
                    cell_index=cell,
                    cell={"engine.batch_size": cell + 1},
                    block=block,
                    position=cell,
                )
                run = f"20260102-030405-{number:08x}{cell:02x}{block:02x}"
                run_of_energy(store, energy, experiment_id=run, plan=plan, study=place)
    open_caught_up(store, lambda line: None).close()
    return store


def test_studies_in_the_tables_say_what_their_figures_say(measured: Store) -> None:
    """Each verdict is that of the energies that were planted; tests/results/test_comparison.py judges those of many more."""
    with open_caught_up(measured, lambda line: None) as tables:
        for number in (*EQUAL, *WORSE):
            groups = named_groups(tables, measured, GROUPS, within=study_id(number))
            (found,) = compare_groups(tables, groups, figures=[FIGURE]).compared
            planted = compare(*energies(number), paired=True)
            assert found.comparison.ratio == pytest.approx(planted.ratio, rel=1e-5)
            assert (found.comparison.method, found.comparison.verdict) == ("paired", planted.verdict)


def test_a_regression_fails_in_continuous_integration_and_none_does_not(measured: Store, llem: Run) -> None:
    """--fail-if worse ends with 1 on every planted 5 %, and on 20 equal pairs at most once."""
    statuses = {
        number: llem(
            *("compare", *GROUPS, "--in", study_id(number), "--figure", FIGURE, "--fail-if", "worse"),
            LLEM_DIR=str(measured.path),
        ).returncode
        for number in (*EQUAL, *WORSE)
    }
    assert [statuses[number] for number in WORSE] == [1] * len(WORSE)
    assert sum(statuses[number] for number in EQUAL) <= 1
