"""llem compare."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from llem.cli import console
from llem.cli.console import folded, on_one_line, text_output
from llem.cli.options import FactorsOption, StoreOption
from llem.cli.table import write_table
from llem.cli.tables import tables_of
from llem.comparing import (
    COLUMNS,
    Compared,
    Findings,
    Group,
    compare_groups,
    named_groups,
    record,
    remarks,
    state_factors,
)
from llem.errors import QueryError
from llem.export import formats
from llem.results.comparison import LEAST_RUNS, LEVEL, MARGIN
from llem.store import Store
from llem.study.history import find_study_id

FAILED = 1
NAME_WIDTH = 14  # of a group at the head of a column; longer ones stand above the table alone


class Format(StrEnum):
    """How the comparison is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MD = "md"


class FailIf(StrEnum):
    """Which verdict ends the command with exit status 1."""

    WORSE = "worse"
    UNCLEAR = "unclear"


def compare(
    groups: Annotated[
        list[str],
        typer.Argument(
            metavar="GROUP",
            help="Groups of runs: RUN, RUN,RUN or KEY=VALUE of a label or the plan. The first is the reference.",
        ),
    ],
    figure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this figure of experiment_results or footprint(); may be given again."
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="A difference of this share does not matter.")
    ] = MARGIN,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="How often an interval shall hold the truth.")
    ] = LEVEL,
    within: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="STUDY",
            help="Look for KEY=VALUE in this study, not in the newest that varies KEY.",
            show_default=False,
        ),
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Look for KEY=VALUE in all runs.")] = False,
    valid: Annotated[bool, typer.Option("--valid", help="Leave out runs that are not valid.")] = False,
    output_format: Annotated[Format, typer.Option("-f", "--format", help="How to write it.")] = Format.TABLE,
    fail_if: Annotated[
        FailIf | None,
        typer.Option(help="Exit with 1 if any figure is this.", show_default=False),
    ] = None,
    factors: FactorsOption = None,
    store: StoreOption = None,
) -> None:
    """Compare groups of runs: each figure's ratio to the first group's, with its interval."""
    if len(groups) < 2:
        raise QueryError("groups to compare", found=len(groups), expected="two or more")
    _check_scope(groups, within=within, everywhere=everywhere)
    place = Store.locate(store)
    study_id = None if within is None else find_study_id(place.require(), within)
    with tables_of(place) as connection:
        state_factors(connection, place, figure or (), factors)
        members = named_groups(connection, place, groups, within=study_id, everywhere=everywhere)
        findings = compare_groups(
            connection, members, figures=figure or (), valid_only=valid, level=level, margin=margin
        )
    _write(findings, output_format, level)
    _fail(findings, fail_if)


def _check_scope(groups: Sequence[str], *, within: str | None, everywhere: bool) -> None:
    """What would do nothing is refused."""
    if within is not None and everywhere:
        raise QueryError("--in and --all", found="both", expected="one of them")
    if (within is not None or everywhere) and not any("=" in group for group in groups):
        option = "--all" if everywhere else "--in"
        raise QueryError(option, found="no group KEY=VALUE", expected="one, to be looked for there")


def _write(findings: Findings, output_format: Format, level: float) -> None:
    rows = [record(each) for each in findings.compared]
    with text_output() as out:
        match output_format:
            case Format.CSV:
                formats.write_csv(out, COLUMNS, rows)
            case Format.JSON:
                formats.write_json_objects(out, [_whole(findings, rows)])
            case Format.MD:
                out.writelines(f"- {on_one_line(line)}\n" for line in remarks(findings))
                out.write("\n")
                formats.write_markdown(out, *_screen(findings, level))
            case Format.TABLE:
                write_comparison(findings, level, instead="-f json")
    if output_format is Format.CSV:
        for line in findings.doubts:
            console.note(f"llem: {line}")


def write_comparison(findings: Findings, level: float = LEVEL, *, instead: str) -> None:
    """The table for people, and above it what they have to know; `instead` shows what did not fit."""
    with text_output() as out:
        out.writelines(folded(on_one_line(line), sys.stdout) + "\n" for line in remarks(findings))
    columns, screen = _screen(findings, level)
    write_table(sys.stdout, columns, screen, instead=instead)


def _whole(findings: Findings, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {
        "study_id": findings.study_id,
        "groups": {group.name: group.values("experiment_id") for group in findings.groups},
        "differences": findings.differences,
        "doubts": findings.doubts,
        "costs": findings.costs and msgspec.to_builtins(findings.costs),
        "comparisons": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
    }


def _screen(findings: Findings, level: float) -> tuple[list[str], list[list[str]]]:
    """The table for people, what matters most to the left; the group stands in it where there are several beside the reference."""
    several = len(findings.groups) > 2
    before, after = ("reference", "value") if several else _heads(findings.groups)
    ratio = f"ratio, {100 * level:.4g} % interval"
    rows = [
        {
            "group": each.group,
            "figure": each.figure.shown or each.figure.name,
            ratio: _ratio(each),
            "verdict": _verdict(each),
            before: _number(each.comparison.reference, each.figure.unit),
            after: _number(each.comparison.value, each.figure.unit),
            "sensors": _sensors(each),
        }
        for each in findings.compared
    ]
    # a reference that stands in every row is the first to go where there is no room
    order = ["group", "figure", ratio, "verdict", after, "sensors", before]
    columns = order if several else ["figure", ratio, "verdict", before, after, "sensors"]
    return columns, [[row[column] for column in columns] for row in rows]


def _heads(groups: Sequence[Group]) -> tuple[str, str]:
    """The names of both groups, as far as these leave room for anything else."""
    first, second = (group.name for group in groups)
    return (first, second) if max(len(first), len(second)) <= NAME_WIDTH else ("reference", "value")


def _ratio(each: Compared) -> str:
    found = each.comparison
    if found.ratio is None:
        return ""
    if found.ratio_low is not None and found.ratio_high is not None:
        return f"{found.ratio:.4g} [{found.ratio_low:.4g}, {found.ratio_high:.4g}]"
    if each.within_run is not None:
        low, high = each.within_run
        return f"{found.ratio:.4g}, within the runs [{low:.4g}, {high:.4g}]"
    return f"{found.ratio:.4g}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{digits} {unit}".rstrip()


def _sensors(each: Compared) -> str:
    """What the sensors may be off by, beside what differs from run to run: the two are never added."""
    return "" if each.energy_bound is None else f"±{100 * each.energy_bound:.1f} %"


def _verdict(each: Compared) -> str:
    found = each.comparison
    p = "" if found.p_adjusted is None else f", p {_p(found.p_adjusted)}"
    notes = [note for note in (_within(each), found.reason, _few(each), _needed(each)) if note]
    return f"{found.verdict}{p}" + "".join(f"; {note}" for note in notes)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _within(each: Compared) -> str:
    found = each.comparison
    return "within the margin" if found.within_margin and found.verdict in ("higher", "lower") else ""


def _few(each: Compared) -> str:
    found = each.comparison
    is_few = found.p is not None and min(found.runs, found.reference_runs) < LEAST_RUNS
    return f"{LEAST_RUNS} runs are the least" if is_few else ""


def _needed(each: Compared) -> str:
    needed = each.comparison.repeats_needed
    return "" if needed is None else f"about {needed} runs of each would tell"


def _fail(findings: Findings, fail_if: FailIf | None) -> None:
    if fail_if is None:
        return
    met = [
        each
        for each in findings.compared
        if (each.is_worse if fail_if is FailIf.WORSE else each.comparison.verdict == "unclear")
    ]
    for each in met:
        console.note(f"llem: {fail_if}: {each.figure.name} of {each.group}")
    if met:
        raise typer.Exit(FAILED)
