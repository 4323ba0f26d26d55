"""The `[study]` of a plan: cells, schedule, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.errors import PlanError
from llem.plan_file import cell_hash, config_hash, convert
from llem.study.plan import Slot, StudyPlan, difference, schedule, study_of

VARIED = {"study": {"vary": {"engine.batch_size": [1, 4]}}}


def test_cells_are_all_combinations_with_each_alternative() -> None:
    """The last key is the fastest, an empty alternative is the plan as it is, and quoted and nested keys are the same."""
    table = {
        "study": {
            "vary": {"engine.batch_size": [1, 4], "workload": {"requests": [8, 16]}},
            "together": [{}, {"model.dtype": "bfloat16", "meter": {"sample_hz": 20.0}}],
        }
    }
    study = study_of(table)
    assert len(study.cells) == 8
    assert study.cells[:3] == [
        {"engine.batch_size": 1, "workload.requests": 8},
        {"engine.batch_size": 1, "workload.requests": 8, "model.dtype": "bfloat16", "meter.sample_hz": 20.0},
        {"engine.batch_size": 1, "workload.requests": 16},
    ]
    assert [plan.engine.batch_size for plan in study.plans] == [1] * 4 + [4] * 4
    assert study.plans[1].model.dtype == "bfloat16"


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32))
def test_every_block_has_every_cell_once_and_more_repeats_change_none_before(
    cells: int, repeats: int, seed: int
) -> None:
    """The order is drawn from seed and block alone."""
    plan = StudyPlan(seed=seed)
    slots = schedule(plan, cells, repeats)
    for block in range(repeats):
        assert sorted(slot.cell for slot in slots if slot.block == block) == list(range(cells))
    assert schedule(plan, cells, repeats + 3)[: len(slots)] == slots


def test_order_as_written_is_that() -> None:
    """No draw."""
    slots = schedule(StudyPlan(order="as_written"), 2, 2)
    assert slots == [Slot(0, 0, 0), Slot(0, 1, 1), Slot(1, 0, 0), Slot(1, 1, 1)]


def test_prompts_are_the_same_in_a_block_and_others_in_the_next() -> None:
    """The seed of prompts follows the block, so that the configuration's hash does not tell repeats; the cell's does."""
    study = study_of(VARIED)
    first, second, other = (study.plan_of(Slot(*slot)) for slot in ((0, 0, 0), (1, 1, 0), (0, 1, 1)))
    assert first.workload.seed == other.workload.seed == second.workload.seed - 1
    assert config_hash(first) != config_hash(second)
    assert cell_hash(first) == cell_hash(second) != cell_hash(other)
    same = study_of({"study": {**VARIED["study"], "same_prompts_in_block": False}})
    assert same.plan_of(Slot(1, 0, 0)).workload.seed == first.workload.seed


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({}, "found one cell"),
        (
            {"vary": {"engine.batch_size": 4}},
            "plan key study.vary.engine.batch_size: found 4, expected a list",
        ),
        ({"vary": {"engine.batch_size": []}}, "expected a list of values"),
        ({"vary": {"engine.batch_size": [4, 4]}}, "expected each value once"),
        ({"vary": {"engine.batch_size": [4], "engine": {"batch_size": [8]}}}, "quoted and nested"),
        ({"vary": {"engine.batchsize": [4, 8]}}, "did you mean engine.batch_size?"),
        ({"vary": {"engine.batch_size": [4, -1]}}, "plan key engine.batch_size"),
        (
            {"vary": {"engine.batch_size": [4]}, "together": [{"engine.batch_size": 8}, {}]},
            "in study.vary and in study.together",
        ),
        ({"repeat": 3, "vary": {"engine.batch_size": [4, 8]}}, "did you mean study.repeats?"),
        ({"repeats": 0, "vary": {"engine.batch_size": [4, 8]}}, "plan key study.repeats"),
        (
            {"order": "mirrored", "vary": {"engine.batch_size": [4, 8]}},
            "plan key study.order: found 'mirrored', expected one of random, as_written",
        ),
        ({"repeats": 100_000, "vary": {"engine.batch_size": [4, 8]}}, "expected at most 100,000"),
    ],
)
def test_what_is_wrong_in_a_study_is_said(study: dict[str, Any], said: str) -> None:
    """The key, what was found and what was expected."""
    with pytest.raises(PlanError) as refused:
        study_of({"study": study})
    assert said in str(refused.value)


def test_a_plan_of_one_run_is_no_study_and_the_other_way_round() -> None:
    """Each command names the other."""
    with pytest.raises(PlanError, match="no such table"):
        study_of({"engine": {"batch_size": 4}})
    with pytest.raises(PlanError, match="llem study measures them"):
        convert(VARIED)


def test_the_first_difference_is_named_with_both_values() -> None:
    """How often is no difference; another value is, and a key that only one has."""
    other = {"study": {"vary": {"engine.batch_size": [1, 8]}, "repeats": 10}}
    assert difference(VARIED, other) == ("study.vary.engine.batch_size", [1, 4], [1, 8])
    assert difference(VARIED, {"study": {**VARIED["study"], "repeats": 10}}) is None
    assert difference(VARIED, {**VARIED, "name": "x"}) == ("name", None, "x")
