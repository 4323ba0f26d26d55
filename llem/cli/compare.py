"""llem compare."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from llem.cli import completing, console
from llem.cli.chosen_runs import study_to_look_in
from llem.cli.console import folded, on_one_line, text_output
from llem.cli.options import (
    EverywhereOption,
    FactorsOption,
    InStudyOption,
    LevelOption,
    MarginOption,
    StoreOption,
    ValidOption,
)
from llem.cli.table import fits, write_sections, write_table
from llem.cli.tables import tables_of
from llem.comparing.compared import COLUMNS, Compared, energy_source, not_sensed, record
from llem.comparing.findings import Findings, compare_groups, remarks, state_factors
from llem.comparing.groups import Group
from llem.comparing.named import named_groups
from llem.errors import QueryError
from llem.export import formats
from llem.results.comparison import LEAST_RUNS, LEVEL, MARGIN
from llem.store import Store

FAILED = 1
SHORT_ID = len("20260102-030405")  # at least: the second in which a run was started
_ID = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{12}\b")
Screen = tuple[list[str], list[list[str]]]  # columns and rows
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
            metavar="GROUP...",
            autocompletion=completing.run,
            help="Groups of runs: RUN, RUN,RUN or KEY=VALUE of a label or the plan. The first is the reference.",
        ),
    ],
    figure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this figure of experiment_results or footprint(); may be given again."
        ),
    ] = None,
    margin: MarginOption = MARGIN,
    level: LevelOption = LEVEL,
    within: InStudyOption = None,
    everywhere: EverywhereOption = False,
    valid: ValidOption = False,
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
    place = Store.locate(store)
    study_id = study_to_look_in(place, groups, within=within, everywhere=everywhere)
    with tables_of(place) as connection:
        state_factors(connection, place, figure or (), factors)
        members = named_groups(connection, place, groups, within=study_id, everywhere=everywhere)
        findings = compare_groups(
            connection, members, figures=figure or (), valid_only=valid, level=level, margin=margin
        )
    _write(findings, place, output_format, level)
    fail(findings, fail_if)


def _write(findings: Findings, store: Store, output_format: Format, level: float) -> None:
    with text_output() as out:
        match output_format:
            case Format.CSV:
                formats.write_csv(out, COLUMNS, map(record, findings.compared))
            case Format.JSON:
                formats.write_json_objects(out, [whole(findings)])
            case Format.MD:
                out.writelines(f"- {on_one_line(line)}\n" for line in remarks(findings))
                out.write("\n")
                formats.write_markdown(out, *_screen(findings, level))
            case Format.TABLE:
                write_comparison(findings, store, level, instead="-f json")
    if output_format is Format.CSV:
        for line in findings.doubts:
            console.note(f"llem: {line}")


def write_comparison(findings: Findings, store: Store, level: float = LEVEL, *, instead: str) -> None:
    """The table for people, and above it what they have to know; `instead` shows what did not fit."""
    short = shortener(store)
    with text_output() as out:
        out.writelines(folded(short(on_one_line(line)), sys.stdout) + "\n" for line in remarks(findings))
    columns, screen = _shortened(_screen(findings, level), short)
    write = write_sections if len(findings.groups) > 2 else write_table
    if write is write_table and not fits(sys.stdout, columns, screen):
        columns, screen = _shortened(_sections(findings, level), short)
        write = write_sections
    write(sys.stdout, columns, screen, instead=instead)


def _shortened(screen: Screen, short: Callable[[str], str]) -> Screen:
    columns, rows = screen
    return columns, [list(map(short, row)) for row in rows]


def whole(findings: Findings) -> dict[str, Any]:
    """All of a comparison, for programs."""
    return {
        "study_id": findings.study_id,
        "groups": {group.name: group.values("experiment_id") for group in findings.groups},
        "differences": findings.differences,
        "doubts": findings.doubts,
        "costs": findings.costs and msgspec.to_builtins(findings.costs),
        "comparisons": [dict(zip(COLUMNS, record(each), strict=True)) for each in findings.compared],
    }


def _screen(findings: Findings, level: float) -> Screen:
    """The table for people: a row a figure; of several groups one a figure and group, the reference first."""
    if len(findings.groups) > 2:
        return _sections(findings, level)
    rows = [
        [_name(each), _ratio(each), _verdict(each), *_both(each), _sensors(each)]
        for each in findings.compared
    ]
    return ["figure", _ratio_head(level), "verdict", *_heads(findings.groups), "sensors"], rows


def _sections(findings: Findings, level: float) -> Screen:
    columns = ["figure", "group", _ratio_head(level), "verdict", "value", "sensors"]
    return columns, list(_rows_of_several(findings))


def _ratio_head(level: float) -> str:
    return f"ratio, {100 * level:.4g} % interval"


def _rows_of_several(findings: Findings) -> Iterator[list[str]]:
    """Figure after figure, so that all groups stand below each other."""
    figures: dict[str, list[Compared]] = {}
    for each in findings.compared:
        figures.setdefault(each.figure.name, []).append(each)
    for compared in figures.values():
        references = filter(None, dict.fromkeys(_both(each)[0] for each in compared))
        reference = findings.groups[0]
        source = not_sensed(energy_source(compared[0].figure, reference.runs))
        yield [_name(compared[0]), reference.name, "", "reference", " or ".join(references), source]
        for each in compared:
            yield [
                *(_name(each), each.group, _ratio(each)),
                *(_verdict(each), _both(each)[1], _sensors(each)),
            ]


def _name(each: Compared) -> str:
    return each.figure.title


def _both(each: Compared) -> tuple[str, str]:
    """Of the reference and of the group."""
    values = (each.comparison.reference, each.comparison.value)
    first, second = (_number(value, each.figure.unit) for value in values)
    return first, second


def _heads(groups: Sequence[Group]) -> tuple[str, str]:
    """The names of both groups, as far as these leave room for anything else."""
    first, second = (group.name for group in groups)
    return (first, second) if max(len(first), len(second)) <= NAME_WIDTH else ("reference", "value")


def _ratio(each: Compared) -> str:
    found = each.comparison
    if found.ratio is None:
        return ""
    if found.ratio_low is not None and found.ratio_high is not None:
        return f"{_share(found.ratio)} [{_share(found.ratio_low)}, {_share(found.ratio_high)}]"
    if each.within_run is not None:
        low, high = each.within_run
        return f"{_share(found.ratio)}, within the runs [{_share(low)}, {_share(high)}]"
    return _share(found.ratio)


def _share(ratio: float) -> str:
    """To a thousandth where it is near 1, else to three digits."""
    return f"{ratio:.3f}" if 0.1 <= ratio < 10 else f"{ratio:.3g}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{digits} {unit}".rstrip()


def _sensors(each: Compared) -> str:
    """That no sensor told an energy, else what it may be off by, beside what differs from run to run: the two are never added."""
    bound = "" if each.energy_bound is None else f"±{100 * each.energy_bound:.1f} %"
    return ", ".join(filter(None, (not_sensed(each.energy_source), bound)))


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


def fail(findings: Findings, fail_if: FailIf | None) -> None:
    """Name the figures that are what nobody wants, and end with status 1 where there are any; name those of which nobody can say."""
    if fail_if is None:
        return
    met = [
        each
        for each in findings.compared
        if (each.is_worse if fail_if is FailIf.WORSE else each.comparison.verdict == "unclear")
    ]
    for each in findings.compared:
        if each.comparison.ratio is None:
            console.note(
                f"llem: cannot be judged: {each.figure.name} of {each.group}: {each.comparison.reason}"
            )
    for each in met:
        console.note(f"llem: {fail_if}: {each.figure.name} of {each.group}")
    if met:
        raise typer.Exit(FAILED)


def shortener(store: Store) -> Callable[[str], str]:
    """What shortens the id of each experiment wherever it stands in a text: as short as they are told apart in the store, and good enough to be typed."""
    known = store.experiment_ids()
    shared = [0, *(_alike(*pair) for pair in itertools.pairwise(known)), 0]
    short = {
        run: run[: max(SHORT_ID, before + 1, after + 1)]
        for run, (before, after) in zip(known, itertools.pairwise(shared), strict=True)
    }
    return lambda text: _ID.sub(lambda written: short.get(written[0], written[0]), text)


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    return sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    )
