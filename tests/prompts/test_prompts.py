"""Prompts: seeded synthetic sets, files with their errors, shares and batches."""

import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.engines.base import EncodedPrompt
from llem.errors import PlanError
from llem.plan import LengthPlan, Plan
from llem.prompts import batches, draw_length, load_prompts, prompt_set_sha256, share

MakePlan = Callable[..., Plan]


def file_plan(make_plan: MakePlan, path: Path, requests: int = 3) -> Plan:
    return make_plan(workload={"source": "file", "path": str(path), "requests": requests})


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_shares_partition(prompts: list[int], processes: int) -> None:
    """Every prompt goes to exactly one process, and no share is larger than another by more than one."""
    shares = [share(prompts, index, processes) for index in range(processes)]
    assert sorted(chain.from_iterable(shares)) == sorted(prompts)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_batches_keep_order(prompts: list[int], size: int) -> None:
    """Batches joined are the prompts, and only the last may be smaller than the batch size."""
    parts = batches(prompts, size)
    assert list(chain.from_iterable(parts)) == prompts
    assert all(len(part) == size for part in parts[:-1])
    assert all(parts)


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 1000), st.floats(0, 1), st.integers())
def test_lengths_stay_in_range(smallest: int, extra: int, mean: int, spread: float, seed: int) -> None:
    """Uniform and lognormal lengths lie within [min, max]."""
    for kind in ("uniform", "lognormal"):
        lengths = LengthPlan(kind=kind, min=smallest, max=smallest + extra, mean=mean, spread=spread)
        assert smallest <= draw_length(lengths, random.Random(seed)) <= smallest + extra


def test_fixed_and_lognormal_lengths_have_their_mean() -> None:
    """A fixed length is the mean; lognormal lengths have it on average."""
    rng = random.Random(1)
    assert draw_length(LengthPlan(mean=77), rng) == 77
    drawn = [draw_length(LengthPlan(kind="lognormal", mean=200), rng) for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(200, rel=0.03)


def test_impossible_length_range_is_refused() -> None:
    """min above max is an error that names both."""
    with pytest.raises(PlanError, match=r"found min 9 > max 3, expected min <= max"):
        draw_length(LengthPlan(kind="uniform", min=9, max=3), random.Random(0))


def test_synthetic_prompts_depend_on_the_seed_alone(make_plan: MakePlan) -> None:
    """The same plan gives the same prompts; another seed gives others."""
    plan, other = (make_plan(workload={"requests": 5, "seed": seed}) for seed in (1, 2))
    assert load_prompts(plan) == load_prompts(plan)
    assert load_prompts(plan) != load_prompts(other)
    assert [prompt.request_id for prompt in load_prompts(plan)] == [0, 1, 2, 3, 4]


def test_missing_prompt_file(make_plan: MakePlan, tmp_path: Path) -> None:
    """A file that does not exist, or is not named at all, is an error."""
    with pytest.raises(PlanError, match="cannot be read: found No such file"):
        load_prompts(file_plan(make_plan, tmp_path / "none.jsonl"))
    with pytest.raises(PlanError, match=r"expected workload\.path"):
        load_prompts(make_plan(workload={"source": "file"}))


def encoded(request_id: int = 0, limit: int = 4, ids: tuple[int, ...] = (1, 2)) -> EncodedPrompt:
    return EncodedPrompt(request_id=request_id, max_new_tokens=limit, token_ids=ids)


def test_prompt_set_digest_covers_all_that_the_engine_gets() -> None:
    """The digest changes with ids, limits, order and with where one prompt ends; never with the text."""
    sets = [
        [encoded(), encoded(1)],
        [encoded(1), encoded()],
        [encoded(limit=5), encoded(1)],
        [encoded(ids=(1,)), encoded(1, ids=(2, 1, 2))],
    ]
    assert len({prompt_set_sha256(prompts) for prompts in sets}) == len(sets)
    with_text = EncodedPrompt(request_id=0, max_new_tokens=4, token_ids=(1, 2), text="secret")
    assert prompt_set_sha256([with_text]) == prompt_set_sha256([encoded()])
