"""The `[study]` of a plan: which configurations it measures, how often, and in which order. Pure; nothing here measures."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from llem.errors import PlanError
from llem.plan import Name, Plan, Positive, PositiveSeconds, Seconds, Section, Seed, says
from llem.plan_file import assign, check_section, convert, key_and_value, read_table

Cell = dict[str, Any]
MAX_RUNS = 100_000
_VARY = "study.vary."


class StudyPlan(Section, frozen=True, kw_only=True):
    """What is varied, and how often each configuration is measured."""

    name: Annotated[Name | None, says("to find the study by")] = None
    repeats: Annotated[Positive, says("blocks, each of which measures every cell once")] = 5
    order: Annotated[
        Literal["random", "as_written"], says("of the cells, drawn for each block from seed and block")
    ] = "random"
    seed: Annotated[Seed, says("of that order")] = 1
    same_prompts_in_block: Annotated[
        bool, says("workload.seed is the plan's plus the block's number; else it stays the plan's")
    ] = True
    on_failure: Annotated[
        Literal["continue", "stop"], says("a failed run is tried again once, at the end of its block")
    ] = "continue"
    max_block_gap_s: Annotated[
        Seconds,
        says(
            "a block that was interrupted for longer is measured again whole, and its old runs do not count"
        ),
    ] = 1800.0
    time_limit_s: Annotated[
        PositiveSeconds | None,
        says("the study ends after so much time, in the middle of a run if need be; --resume goes on"),
    ] = None
    vary: Annotated[dict[str, Any], says("key of the plan = list of values; all are combined")] = (
        msgspec.field(default_factory=dict)
    )
    together: Annotated[
        list[dict[str, Any]],
        says("alternatives that set several keys at once; an empty one is the plan as it is"),
    ] = msgspec.field(default_factory=list)


class Slot(NamedTuple):
    """A place of the schedule."""

    block: int
    position: int  # within the block
    cell: int


class Study(NamedTuple):
    """A study as it is planned: plans are of one block, before the block's own seed is set."""

    plan: StudyPlan
    written: dict[str, Any]  # as in the file
    cells: list[Cell]
    plans: list[Plan]  # of each cell

    def schedule(self, repeats: int | None = None) -> list[Slot]:
        """Every cell once a block. More repeats never change the blocks before."""
        return schedule(self.plan, len(self.cells), repeats or self.plan.repeats)

    def plan_of(self, slot: Slot) -> Plan:
        """What is measured at a place of the schedule."""
        plan = self.plans[slot.cell]
        if not self.plan.same_prompts_in_block:
            return plan
        workload = msgspec.structs.replace(plan.workload, seed=plan.workload.seed + slot.block)
        return msgspec.structs.replace(plan, workload=workload)


def read_study(path: Path, settings: Sequence[str] = ()) -> Study:
    """The study in a plan's file, with `settings` ("a.b=value") over what stands in it. Raises PlanError."""
    table = read_table(path)
    keys = [_set(table, *key_and_value(setting)) for setting in settings]
    study = study_of(table)
    varied = {key for cell in study.cells for key in cell}
    for key in keys:
        if key in varied:
            raise PlanError(
                f"--set {key}",
                found="a key that the study varies",
                expected=f"study.vary.{key}=[...], or another key",
            )
    return study


def _set(table: dict[str, Any], key: str, value: object) -> str:
    """The key, once it has that value: one of study.vary in the place of the same one, however that is written."""
    before, vary, varied = key.partition(_VARY)
    if before or not vary:
        assign(table, key, value)
        return key
    section = table.get("study")
    axes = section.get("vary") if isinstance(section, dict) else None
    known = flat(axes, "study.vary") if isinstance(axes, dict) else {}
    assign(table, "study.vary", known | {varied: value})
    return key


def study_of(table: Mapping[str, Any]) -> Study:
    """The study that a plan's tables describe; every cell is a plan that can be used. Raises PlanError."""
    if not isinstance(table.get("study"), dict):
        raise PlanError(
            "plan key study", found="no such table", expected="[study.vary] or [[study.together]]"
        )
    plan = check_section(table["study"], StudyPlan, "study")
    cells = list(cells_of(plan))
    if len(cells) * plan.repeats > MAX_RUNS:
        raise PlanError(
            "a study", found=f"{len(cells) * plan.repeats:,} runs", expected=f"at most {MAX_RUNS:,}"
        )
    base = {key: part for key, part in table.items() if key != "study"}
    return Study(plan, dict(table), cells, [_plan_of_cell(base, cell) for cell in cells])


def cells_of(plan: StudyPlan) -> Iterator[Cell]:
    """Every combination of the values that vary, the last key fastest, with each alternative of several keys."""
    axes = flat(plan.vary, "study.vary")
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise PlanError(f"plan key study.vary.{key}", found=repr(values), expected="a list of values")
        if len({msgspec.json.encode(value) for value in values}) < len(values):
            raise PlanError(f"plan key study.vary.{key}", found=repr(values), expected="each value once")
    alternatives = [flat(each, f"study.together[{place}]") for place, each in enumerate(plan.together)] or [
        {}
    ]
    if not axes and len(alternatives) < 2:
        raise PlanError(
            "plan key study", found="one cell", expected="something that varies, in vary or together"
        )
    for values in itertools.product(*axes.values()):
        for alternative in alternatives:
            cell = dict(zip(axes, values, strict=True))
            if both := sorted(cell.keys() & alternative.keys()):
                raise PlanError(
                    f"plan key {both[0]}", found="in study.vary and in study.together", expected="one"
                )
            yield cell | alternative


def flat(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Dotted key -> value, however the tables are nested. Raises PlanError for a key given twice."""
    found: dict[str, Any] = {}
    for key, value in _leaves(table, ""):
        if key in found:
            raise PlanError(
                f"plan key {place}.{key}", found="it twice, quoted and nested", expected="it once"
            )
        found[key] = value
    return found


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def cell_name(cell: Cell) -> str:
    """A configuration by the last parts of its keys."""
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in cell.items()) or "as in the plan"


def _plan_of_cell(base: Mapping[str, Any], cell: Cell) -> Plan:
    table = msgspec.json.decode(msgspec.json.encode(base))  # its own tables, to be changed
    for key, value in cell.items():
        assign(table, key, value)
    return convert(table)


def schedule(plan: StudyPlan, cells: int, repeats: int) -> list[Slot]:
    """The places of all blocks."""
    return [
        Slot(block, position, cell)
        for block in range(repeats)
        for position, cell in enumerate(_order(plan, cells, block))
    ]


def block_count(slots: Sequence[Slot]) -> int:
    """How many blocks a schedule has."""
    return max(slot.block for slot in slots) + 1


def _order(plan: StudyPlan, cells: int, block: int) -> Sequence[int]:
    order = list(range(cells))
    if plan.order == "random":
        random.Random(f"{plan.seed}:{block}").shuffle(order)
    return order


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key in which two plans as written differ, with both values; None where they are the same.

    How often each cell is measured is no difference: a study may be extended.
    """
    first, second = (dict(_leaves(table, "")) for table in (before, now))
    for key in sorted(first.keys() | second.keys()):
        if key != "study.repeats" and first.get(key) != second.get(key):
            return key, first.get(key), second.get(key)
    return None
