"""The top of a page: what was found, how configurations compare, and whether they can be relied on."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from llem.comparing.compared import Compared, energy_source, not_sensed
from llem.comparing.doubts import is_unjudged
from llem.comparing.groups import Group, Run
from llem.reporting.markup import folded, interval, key, mean, table_of_html
from llem.reporting.report import FIGURES, Part, Report
from llem.reporting.svg import number
from llem.results.comparison import mean_of_runs
from llem.units import NS_PER_S
from llem.versions import __version__

RATES = ("output_tokens_per_second", "tokens_per_second")
TRUST = ("valid", "energy", "throttled", "warnings")
_SAID_IN_THE_TABLE = re.compile(": not (valid: |judged, )")


def head(report: Report) -> Iterator[Part]:
    """What the page is about, the headline, and what was measured when and by what."""
    yield f"<h1>{escape(report.title)}</h1>"
    yield f'<p class="lead">{escape(_headline(report))}</p>'
    groups = report.findings.groups
    runs = [run for group in groups for run in group.runs]
    hosts = ", ".join(sorted({run["host"] for run in runs if run["host"]}))
    said = [
        f"{len(runs)} run{'' if len(runs) == 1 else 's'}{f' on {hosts}' if hosts else ''}",
        _when([run["start_ns"] for run in runs if run["start_ns"] is not None]),
        f"llem {__version__}",
        f"{report.level_in_words} intervals are of runs, by the t distribution"
        if len(runs) > len(groups)
        else "",
    ]
    yield f'<p class="soft">{escape("; ".join(filter(None, said)))}.</p>'


def _when(starts_ns: Sequence[int]) -> str:
    """From the first run's start to the last one's, UTC."""
    if not starts_ns:
        return ""
    first, last = (datetime.fromtimestamp(edge(starts_ns) / NS_PER_S, UTC) for edge in (min, max))
    if first == last:
        return f"measured {first:%Y-%m-%d %H:%M} UTC"
    return f"measured {first:%Y-%m-%d %H:%M} to {last:{'%H:%M' if first.date() == last.date() else '%Y-%m-%d %H:%M'}} UTC"


def _headline(report: Report) -> str:
    """What was found about the figure that the report is about: the best configuration beside the reference."""
    main = report.main
    if main is None:
        return "No energy and no duration was measured in every run."
    reference, *others = report.findings.groups
    best = min(others, key=lambda group: mean_of_runs(group.values(main))[0], default=reference)
    found = report.found(best.name, main)
    if len(report.findings.groups) == 1:
        said = _said(main, reference, report.level)
        return f"{said[0].upper()}{said[1:]}."
    if found is None or found.comparison.verdict != "lower":
        return f"{reference.name}: {_said(main, reference, report.level)}; no other is clearly lower ({report.level_in_words})."
    return f"{best.name}: {_said(main, best, report.level)}, {_ratio(found)} that of {reference.name} ({_runs_and_p(found)}){_at_rate(report, best)}."


def _at_rate(report: Report, group: Group) -> str:
    found = next((found for name in RATES if (found := report.found(group.name, name))), None)
    ratio = found.comparison.ratio if found is not None else None
    if found is None or ratio is None:
        return ""
    times = "the same" if abs(ratio - 1) < report.margin else f"{ratio:.3g} times the"
    return f", at {times} {found.figure.title}"


def _runs_and_p(found: Compared) -> str:
    comparison = found.comparison
    of = "blocks" if comparison.method == "paired" else "runs"
    p = "" if comparison.p_adjusted is None else f", Holm p {_p(comparison.p_adjusted)}"
    return f"n = {comparison.runs} {of}{p}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _said(name: str, group: Group, level: float) -> str:
    figure = FIGURES[name]
    value, low, high = mean_of_runs(group.values(name), level=level)
    interval = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
    source = not_sensed(energy_source(figure, group.runs))
    label = f" ({source})" if source else ""
    return f"{figure.title} {number(value)} {figure.unit}{interval}{label}"


def _ratio(found: Compared) -> str:
    comparison = found.comparison
    if comparison.ratio is None:
        return "not comparable with"
    interval = (
        ""
        if comparison.ratio_low is None or comparison.ratio_high is None
        else f" [{comparison.ratio_low:.3g}, {comparison.ratio_high:.3g}]"
    )
    return f"{comparison.ratio:.3g}{interval} times"


def overview(report: Report) -> Iterator[Part]:
    """A row a configuration: its figure, how it compares, and whether it can be relied on; of one alone a row for each of these."""
    groups, main = report.findings.groups, report.main
    is_compared = main is not None and len(groups) > 1
    heads = [] if main is None else [f"{FIGURES[main].title}, {FIGURES[main].unit}"]
    heads += [*(["ratio", "verdict"] if is_compared else []), *TRUST]
    rows = []
    for place, group in enumerate(groups):
        row = [] if main is None else [mean(main, group.values(main), report.level)]
        row += _compared_cells(report.found(group.name, main or "")) if is_compared else []
        is_open = sum(len(each.runs) for each in groups) == 1
        rows.append([key(place) + escape(group.name), *row, *_trust(group, is_open=is_open)])
    if len(groups) == 1:
        yield table_of_html([], [[escape(head), cell] for head, cell in zip(heads, rows[0][1:], strict=True)])
    else:
        yield table_of_html(["", *heads], rows, kind="cards")
    doubts = [doubt for doubt in report.findings.doubts if not _SAID_IN_THE_TABLE.search(doubt)]
    if doubts:
        yield f'<ul class="note">{"".join(f"<li>{escape(doubt)}</li>" for doubt in doubts)}</ul>'


def _compared_cells(found: Compared | None) -> list[str]:
    if found is None:
        return ["reference", ""]
    comparison = found.comparison
    ratio = "" if comparison.ratio is None else f"{comparison.ratio:.3g}"
    kind = {"lower": "good", "higher": "bad"}.get(comparison.verdict, "soft")
    why = [comparison.reason] if comparison.reason else []
    return [
        ratio + interval(comparison.ratio_low, comparison.ratio_high),
        folded(comparison.verdict, why, kind=kind),
    ]


def _trust(group: Group, *, is_open: bool) -> Iterator[str]:
    """Valid runs, where the energy comes from, runs that were slowed down, and warnings, with what stands behind each."""
    runs = group.runs
    valid = sum(bool(run["valid"]) for run in runs)
    unjudged = sum(map(is_unjudged, runs))
    told = f"{valid} of {len(runs)}{f', {unjudged} not judged' if unjudged else ''}"
    reasons = _told(runs, "invalid_reasons", by_name=not is_open)
    yield folded(told, reasons, kind=kind_of(valid == len(runs)), is_open=is_open)
    sources = sorted({energy_source(FIGURES["total_energy_j"], [run]) or "not measured" for run in runs})
    said = ", ".join(sources)
    yield folded(said, [], kind=kind_of(not not_sensed(said)))
    if any(run["throttle_sec"] is not None for run in runs):
        slowed = [
            f"{run['experiment_id']}: {number(run['throttle_sec'])} s" for run in runs if run["throttle_sec"]
        ]
        yield folded(f"{len(slowed)} of {len(runs)}", slowed, kind=kind_of(not slowed))
    else:
        yield '<span class="of">not told</span>'
    warnings = _told(runs, "warnings", by_name=not is_open)
    yield folded(str(len(warnings) or "none"), warnings, kind=kind_of(not warnings), is_open=is_open)


def _told(runs: Sequence[Run], column: str, *, by_name: bool) -> list[str]:
    """What is said of runs, each with the run's id where there are several."""
    return [
        f"{run['experiment_id']}: {said}" if by_name else str(said)
        for run in runs
        for said in run[column] or ()
    ]


def kind_of(is_good: bool) -> str:
    return "good" if is_good else "bad"
