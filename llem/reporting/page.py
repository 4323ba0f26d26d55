"""The page: every section from the findings of a comparison, top to bottom, as text that no browser has to complete."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType
from typing import Any, NamedTuple

from llem._version import __version__
from llem.comparing.compared import Compared, energy_source, not_sensed
from llem.comparing.doubts import ENVIRONMENT, is_unjudged
from llem.comparing.findings import Findings, said_of_costs
from llem.comparing.groups import OF_A_SITE, Group, Run
from llem.reporting import charts, zoom
from llem.reporting.charts import Curves, Span, Trace
from llem.reporting.facts import GAP_REQUESTS, Sensor, Site
from llem.reporting.style import SERIES, STYLE
from llem.reporting.svg import number
from llem.results.comparison import arithmetic_mean_of_runs, mean_of_runs
from llem.results.figures import EXPERIMENT_FIGURES, Figure
from llem.results.roofline import RooflinePoint
from llem.units import MS_PER_S, NS_PER_S, duration_in_words
from llem_events.events import StatedFactor
from llem_events.secrets import scrub

FIGURES: dict[str, Figure[Any]] = {figure.name: figure for figure in EXPERIMENT_FIGURES}
MAIN = (
    "energy_per_output_token_j",
    "total_energy_j",
    "duration_sec",
)  # the first that every run has is what the report is about
SLOW = {"ttft_p95_ms": "TTFT p95, ms", "e2e_p95_ms": "end p95, ms"}  # what throughput is paid with
RATES = ("output_tokens_per_second", "tokens_per_second")
REPORTED = (
    *(
        "energy_per_output_token_j",
        "total_energy_j",
        "output_tokens_per_second",
        "tokens_per_second",
        "mean_power_w",
        "duration_sec",
    ),
    *(
        f"{series}_{statistic}_ms"
        for series in ("ttft", "itl", "e2e")
        for statistic in ("median", "p95", "p99")
    ),
    *(
        "energy_adjusted_j",
        "energy_uncertainty_j",
        "peak_memory_mb",
        "max_temperature_c",
        "throttle_sec",
        "model_flops_utilisation",
    ),
)
DIFFERENCES = ("energy_adjusted_j",)  # may be 0 or negative, and have no geometric mean to rely on
# Of a run alone: the bounds of a quantile, by its requests; where there are several runs, these say how far it can be off.
BOUNDS = {
    f"{series}_{quantile}_ms": (f"{series}_{quantile}_low_ms", f"{series}_{quantile}_high_ms")
    for series in ("ttft", "e2e")
    for quantile in ("p95", "p99")
}
TRUST = ("valid", "energy", "throttled", "warnings")
SERIES_NAMES = {
    "ttft_ms": ("time-to-first-token", "time to first token, ms"),
    "itl_ms": ("time-between-tokens", "time between two tokens, ms"),
    "e2e_ms": ("end-to-end", "end to end, ms"),
}


_IN_THE_TABLE = re.compile(": not (valid: |judged, )")
_PATHS = re.compile(r'( d="[^"]*")')


class Drawing(NamedTuple):
    """A chart, by the name that its file gets; `trace` is its place among those that can be looked at closer."""

    name: str
    svg: str
    trace: int | None = None


Part = str | Drawing


class Report(NamedTuple):
    """All that a page shows."""

    title: str
    findings: Findings
    traces: Sequence[Trace]  # of one run of each group, a device each
    distributions: Mapping[str, Mapping[str, Curves]]  # series -> group -> curves
    margin: float
    level: float
    again: Sequence[str]  # commands that make the page and its figures anew
    plan: str | None  # of a study, as it was written, or of the only run
    sensors: Sequence[Sensor] = ()  # that were calibrated
    site: Site | None = None  # where factors were given
    roofline: Mapping[str, RooflinePoint] = MappingProxyType({})  # of each run of which enough is known
    digests: Mapping[str, str] = MappingProxyType({})  # of the log of each run
    samples: Sequence[str] = ()  # of each trace, packed; empty where they are not embedded


def page(report: Report, parts: Iterable[Part]) -> str:
    """The whole document, of the parts that the report has."""
    script = zoom.script() if report.traces else None
    body = "\n".join(map(_html, parts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{zoom.policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(scrub(report.title))}</title>\n<style>{zoom.style() if script else ''}{STYLE}</style></head>\n"
        f"<body>\n{body}\n{_scripts(report, script)}</body></html>\n"
    )


def parts_of(report: Report) -> Iterator[Part]:
    """Texts and charts from top to bottom, without secrets: what stands there was said by others."""
    for part in (part for section in _SECTIONS for part in section(report)):
        yield scrub(part) if isinstance(part, str) else part._replace(svg=_scrubbed(part.svg))


def _scrubbed(svg: str) -> str:
    """Its texts; the paths, which are most of it, are numbers of our own."""
    pieces = _PATHS.split(svg)
    return "".join(piece if place % 2 else scrub(piece) for place, piece in enumerate(pieces))


def _html(part: Part) -> str:
    if isinstance(part, str):
        return part
    data = "" if part.trace is None else f' data-trace="{part.trace}"'
    return f"<figure{data}>{part.svg}</figure>"


def _scripts(report: Report, script: str | None) -> str:
    """What a browser with JavaScript looks closer with."""
    if script is None:
        return ""
    samples = "".join(
        f'<script type="text/plain" id="samples-{place}">{text}</script>\n'
        for place, text in enumerate(report.samples)
    )
    numbers = f'<script type="application/json" id="traces">{zoom.numbers(report.traces)}</script>\n'
    return f"{numbers}{samples}<script>{script}</script>\n"


def _head(report: Report) -> Iterator[Part]:
    yield f"<h1>{escape(report.title)}</h1>"
    yield f'<p class="lead">{escape(_headline(report))}</p>'
    groups = report.findings.groups
    runs = [run for group in groups for run in group.runs]
    hosts = ", ".join(sorted({run["host"] for run in runs if run["host"]}))
    said = [
        f"{len(runs)} run{'' if len(runs) == 1 else 's'}{f' on {hosts}' if hosts else ''}",
        _when([run["start_ns"] for run in runs if run["start_ns"] is not None]),
        f"llem {__version__}",
        f"{_level(report)} intervals are of runs, by the t distribution" if len(runs) > len(groups) else "",
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
    main = _main(report.findings)
    if main is None:
        return "No energy and no duration was measured in every run."
    reference, *others = report.findings.groups
    best = min(others, key=lambda group: mean_of_runs(group.values(main))[0], default=reference)
    found = _found(report, best.name, main)
    if len(report.findings.groups) == 1:
        said = _said(main, reference, report.level)
        return f"{said[0].upper()}{said[1:]}."
    if found is None or found.comparison.verdict != "lower":
        return f"{reference.name}: {_said(main, reference, report.level)}; no other is clearly lower ({_level(report)})."
    return f"{best.name}: {_said(main, best, report.level)}, {_ratio(found)} that of {reference.name} ({_runs_and_p(found)}){_at_rate(report, best)}."


def _at_rate(report: Report, group: Group) -> str:
    found = next((found for name in RATES if (found := _found(report, group.name, name))), None)
    ratio = found.comparison.ratio if found is not None else None
    if found is None or ratio is None:
        return ""
    times = "the same" if abs(ratio - 1) < report.margin else f"{ratio:.3g} times the"
    return f", at {times} {found.figure.shown}"


def _runs_and_p(found: Compared) -> str:
    comparison = found.comparison
    of = "blocks" if comparison.method == "paired" else "runs"
    p = "" if comparison.p_adjusted is None else f", Holm p {_p(comparison.p_adjusted)}"
    return f"n = {comparison.runs} {of}{p}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _found(report: Report, group: str, name: str) -> Compared | None:
    return next(
        (each for each in report.findings.compared if (each.group, each.figure.name) == (group, name)), None
    )


def _level(report: Report) -> str:
    return f"{100 * report.level:g} %"


def _said(name: str, group: Group, level: float) -> str:
    figure = FIGURES[name]
    value, low, high = mean_of_runs(group.values(name), level=level)
    interval = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
    source = not_sensed(energy_source(figure, group.runs))
    label = f" ({source})" if source else ""
    return f"{figure.shown or figure.name} {number(value)} {figure.unit}{interval}{label}"


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


def _main(findings: Findings) -> str | None:
    """The first figure that is above 0 in every run."""
    runs = [run for group in findings.groups for run in group.runs]
    return next((name for name in MAIN if all((run[name] or 0) > 0 for run in runs)), None)


def _overview(report: Report) -> Iterator[Part]:
    """A row a configuration: its figure, how it compares, and whether it can be relied on; of one alone a row for each of these."""
    groups, main = report.findings.groups, _main(report.findings)
    is_compared = main is not None and len(groups) > 1
    heads = [] if main is None else [f"{FIGURES[main].shown or main}, {FIGURES[main].unit}"]
    heads += [*(["ratio", "verdict"] if is_compared else []), *TRUST]
    rows = []
    for place, group in enumerate(groups):
        row = [] if main is None else [_mean(main, group.values(main), report.level)]
        row += _compared_cells(_found(report, group.name, main or "")) if is_compared else []
        is_open = sum(len(each.runs) for each in groups) == 1
        rows.append([_key(place) + escape(group.name), *row, *_trust(group, is_open=is_open)])
    if len(groups) == 1:
        yield _rows_of_html([], [[escape(head), cell] for head, cell in zip(heads, rows[0][1:], strict=True)])
    else:
        yield _rows_of_html(["", *heads], rows, kind="cards")
    doubts = [
        doubt for doubt in report.findings.doubts if not _IN_THE_TABLE.search(doubt)
    ]  # the table says it
    if doubts:
        yield f'<ul class="note">{"".join(f"<li>{escape(doubt)}</li>" for doubt in doubts)}</ul>'


def _key(place: int) -> str:
    """The colour of a configuration."""
    return f'<span class="key k{place % SERIES}"></span>'


def _compared_cells(found: Compared | None) -> list[str]:
    if found is None:
        return ["reference", ""]
    comparison = found.comparison
    ratio = "" if comparison.ratio is None else f"{comparison.ratio:.3g}"
    kind = {"lower": "good", "higher": "bad"}.get(comparison.verdict, "soft")
    why = [comparison.reason] if comparison.reason else []
    return [
        ratio + _interval(comparison.ratio_low, comparison.ratio_high),
        _folded(comparison.verdict, why, kind=kind),
    ]


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f' <span class="of">[{number(low)}, {number(high)}]</span>'


def _trust(group: Group, *, is_open: bool) -> Iterator[str]:
    """Valid runs, where the energy comes from, runs that were slowed down, and warnings, with what stands behind each."""
    runs = group.runs
    valid = sum(bool(run["valid"]) for run in runs)
    unjudged = sum(map(is_unjudged, runs))
    told = f"{valid} of {len(runs)}{f', {unjudged} not judged' if unjudged else ''}"
    reasons = _told(runs, "invalid_reasons", by_name=not is_open)
    yield _folded(told, reasons, kind=_kind(valid == len(runs)), is_open=is_open)
    sources = sorted({energy_source(FIGURES["total_energy_j"], [run]) or "not measured" for run in runs})
    said = ", ".join(sources)
    yield _folded(said, [], kind=_kind(not not_sensed(said)))
    if any(run["throttle_sec"] is not None for run in runs):
        slowed = [
            f"{run['experiment_id']}: {number(run['throttle_sec'])} s" for run in runs if run["throttle_sec"]
        ]
        yield _folded(f"{len(slowed)} of {len(runs)}", slowed, kind=_kind(not slowed))
    else:
        yield '<span class="of">not told</span>'
    warnings = _told(runs, "warnings", by_name=not is_open)
    yield _folded(str(len(warnings) or "none"), warnings, kind=_kind(not warnings), is_open=is_open)


def _told(runs: Sequence[Run], column: str, *, by_name: bool) -> list[str]:
    """What is said of runs, each with the run's id where there are several."""
    return [
        f"{run['experiment_id']}: {said}" if by_name else str(said)
        for run in runs
        for said in run[column] or ()
    ]


def _kind(is_good: bool) -> str:
    return "good" if is_good else "bad"


def _folded(text: str, details: Sequence[str], *, kind: str, is_open: bool = False) -> str:
    """A word, and below it what unfolds."""
    head = f'<span class="{kind}">{escape(text)}</span>'
    if not details:
        return head
    listed = "".join(f"<li>{escape(detail)}</li>" for detail in details)
    return f"<details{' open' if is_open else ''}><summary>{head}</summary><ul>{listed}</ul></details>"


def _main_figure(report: Report) -> Iterator[Part]:
    main = _main(report.findings)
    if main is None or sum(len(group.runs) for group in report.findings.groups) < 2:
        return
    figure = FIGURES[main]
    name = figure.shown or figure.name
    yield f"<h2>{escape(name[0].upper() + name[1:])}</h2>"
    yield f'<p class="note">A dot a run; the bar is the {_level(report)} interval of their mean. What the sensors may be off by is no part of it.</p>'
    runs = {
        group.name: [(run["experiment_id"], run[main]) for run in group.runs]
        for group in report.findings.groups
    }
    means = {
        group.name: Span(*mean_of_runs(group.values(main), level=report.level))
        for group in report.findings.groups
    }
    far = {run for each in report.findings.compared if each.figure.name == main for run in each.outliers}
    if far:
        yield '<p class="note">A ring is a run far from the others of its configuration; it counts like them.</p>'
    yield Drawing("runs", charts.dots(name, f"{name}, {figure.unit}", runs, means, far=far))
    ratios = {
        each.group: Span(each.comparison.ratio, each.comparison.ratio_low, each.comparison.ratio_high)
        for each in report.findings.compared
        if each.figure.name == main and each.comparison.ratio is not None
    }
    if ratios:
        yield f'<p class="note">Against {escape(report.findings.groups[0].name)}; grey: within {100 * report.margin:g} %, where a difference does not matter.</p>'
        yield Drawing("ratios", charts.forest(f"{name}, ratios", ratios, margin=report.margin))


def _frontier(report: Report) -> Iterator[Part]:
    runs = [run for group in report.findings.groups for run in group.runs]
    energy = "energy_per_output_token_j"
    rate = next((name for name in RATES if all(run[name] is not None for run in runs)), None)
    if rate is None or len(runs) < 2 or any((run[energy] or 0) <= 0 or run[rate] <= 0 for run in runs):
        return
    yield "<h2>Energy against throughput</h2>"
    yield '<p class="note">Down and to the right is better; crosses are intervals of the means. The dotted line joins what nothing else beats in both.</p>'
    groups = report.findings.groups
    points = {
        group.name: [(run["experiment_id"], run[rate], run[energy]) for run in group.runs] for group in groups
    }
    spans = {
        group.name: (
            Span(*mean_of_runs(group.values(rate), level=report.level)),
            Span(*mean_of_runs(group.values(energy), level=report.level)),
        )
        for group in groups
    }
    slow = next((name for name in SLOW if all((run[name] or 0) > 0 for run in runs)), None)
    below = slow and {
        group.name: [(run["experiment_id"], run[rate], run[slow]) for run in group.runs] for group in groups
    }
    axes = (f"{FIGURES[rate].shown or rate}", "J per output token", SLOW.get(slow or "", ""))
    drawn = charts.frontier("Energy against throughput", axes, points, spans, below=below or None)
    yield Drawing("frontier", drawn)


def _utilisation(report: Report) -> Iterator[Part]:
    """How much of what the devices could compute was used, where FLOPs and peaks are known."""
    name = "model_flops_utilisation"
    groups = [
        group for group in report.findings.groups if all((value or 0) > 0 for value in group.values(name))
    ]
    if not groups:
        return
    yield "<h2>Share of the peak</h2>"
    yield '<p class="note">FLOPs that the model needs over what all devices could do at their peak (MFU): low where memory or waiting decides.</p>'
    runs = {group.name: [(run["experiment_id"], run[name]) for run in group.runs] for group in groups}
    means = {group.name: Span(*mean_of_runs(group.values(name), level=report.level)) for group in groups}
    if [len(group) for group in runs.values()] == [1]:
        yield f"<p>{100 * groups[0].runs[0][name]:.3g} %.</p>"
    else:
        yield Drawing(
            "utilisation", charts.dots("Share of the peak", "share of the peak FLOP/s", runs, means)
        )
    yield from _roofline(report)


def _roofline(report: Report) -> Iterator[Part]:
    """Whether memory or arithmetic is what holds a configuration back, where bandwidths are known too."""
    points = {
        group.name: [
            (run, report.roofline[run].flops_per_byte, report.roofline[run].flops_per_s)
            for run in group.values("experiment_id")
            if run in report.roofline
        ]
        for group in report.findings.groups
    }
    if not any(points.values()):
        return
    known = report.roofline.values()
    roofs = sorted({(point.bandwidth_bytes_per_s, point.peak_flops_per_s) for point in known})
    yield (
        '<p class="note">Under the slope the limit is memory, under the level it is arithmetic; far below both, it is neither. Bytes are those of '
        "the weights, read once in every step: with the cache of keys and values a run lies further to the left.</p>"
    )
    yield Drawing("roofline", charts.roofline("Roofline", points, roofs))


def _costs(report: Report) -> Iterator[Part]:
    """Of tokens and of idling, where only lengths differ."""
    if report.findings.costs is not None:
        yield "<h2>What a token costs</h2>"
        yield f"<p>{escape(said_of_costs(report.findings.costs))}.</p>"


def _traces(report: Report) -> Iterator[Part]:
    yield "<h2>Power</h2>"
    if not report.traces:
        yield "<p>No power was sampled.</p>"
        return
    yield (
        '<p class="note">The line is the mean over a pixel of time, the band what its samples spanned; dashed: what the energy counter gained. Below: red where the '
        "device was slowed down, and its temperature. Energies stand in the table; the area under a picture is none.</p>"
    )
    yield '<div class="two">'
    for place, drawn in enumerate(report.traces):
        named = _group_of(report, drawn.run)
        yield f'<div><h3>{named}</h3><p class="note">{escape(drawn.run)}, {escape(drawn.name)}</p>'
        yield Drawing(f"power-{place + 1}", charts.trace(f"Power of {drawn.name}", drawn), trace=place)
        yield "</div>"
    yield "</div>"


def _group_of(report: Report, run: str) -> str:
    for place, group in enumerate(report.findings.groups):
        if run in group.values("experiment_id"):
            return _key(place) + escape(group.name)
    return ""


def _latencies(report: Report) -> Iterator[Part]:
    drawn = {series: groups for series, groups in report.distributions.items() if groups}
    if not drawn:
        return
    yield "<h2>Latency</h2>"
    faint = any(curves.runs for groups in drawn.values() for curves in groups.values())
    each = "; faint: each run" if faint else ""
    yield f'<p class="note">Share of the requests that took no longer{each}. Between tokens: of up to {GAP_REQUESTS} requests a run.</p>'
    yield '<div class="two">'
    for series, groups in drawn.items():
        name, axis = SERIES_NAMES[series]
        yield "<div>"
        yield Drawing(f"latency-{name}", charts.distributions(axis, axis, groups))
        yield "</div>"
    yield "</div>"


def _table(report: Report) -> Iterator[Part]:
    """Every figure: the mean of each group's runs with its interval."""
    groups = report.findings.groups
    yield "<h2>Figures</h2>"
    rows = []
    for name in REPORTED:
        values = [group.values(name) for group in groups]
        if any(value is not None for each in values for value in each):
            means = [
                _mean(name, each, report.level) + _bounds(name, group.runs)
                for each, group in zip(values, groups, strict=True)
            ]
            rows.append([escape(FIGURES[name].shown or _words(name)), escape(FIGURES[name].unit), *means])
    names = [group.name for group in groups] if len(groups) > 1 else [""]
    yield _rows_of_html(["", "unit", *names], rows)
    is_alone = sum(len(group.runs) for group in groups) == 1
    said = (
        "In brackets: where a quantile lies by the run's own requests, as far as they are enough."
        if is_alone
        else "Means over runs (geometric, but of energy above idle and of figures that reach 0) with their intervals; “not measured” where a run lacks it."
    )
    yield f'<p class="note">{said}</p>'


def _bounds(name: str, runs: Sequence[Run]) -> str:
    """Those of a quantile of the only run."""
    if len(runs) > 1 or name not in BOUNDS:
        return ""
    return _interval(*(runs[0].get(bound) for bound in BOUNDS[name]))


def _words(name: str) -> str:
    """A figure's name without its unit, for people."""
    words = (
        name.removesuffix("_ms").removesuffix("_j").removesuffix("_mb").removesuffix("_c").removesuffix("_w")
    )
    for short, long in (
        ("ttft", "time to first token"),
        ("itl", "inter-token latency"),
        ("e2e", "end to end"),
    ):
        words = words.replace(short, long)
    return words.replace("_", " ")


def _mean(name: str, values: Sequence[float | None], level: float) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return '<span class="of">not measured</span>'
    if len(known) == 1:  # as the tables have it, for whoever points at it
        return f'<span title="{known[0]!r}">{number(known[0])}</span>'
    mean_of = arithmetic_mean_of_runs if name in DIFFERENCES or min(known) <= 0 else mean_of_runs
    value, low, high = mean_of(known, level=level)
    return number(value) + _interval(low, high)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return _rows_of_html(heads, [[escape(cell) for cell in row] for row in rows])


def _rows_of_html(heads: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """A table whose cells are markup already; one of the kind `cards` stands as a list a row where the page is narrow."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(_cells(heads, row, is_named=bool(kind)))}</tr>" for row in rows)
    opened = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="table">{opened}<tr>{head}</tr>{body}</table></div>'


def _cells(heads: Sequence[str], row: Sequence[str], *, is_named: bool) -> Iterator[str]:
    if not is_named:
        yield from (f"<td>{cell}</td>" for cell in row)
        return
    for head, cell in zip(heads, row, strict=True):
        yield f'<td data-head="{escape(head, quote=True)}"><div>{cell}</div></td>' if cell else "<td></td>"


def _drift(report: Report) -> Iterator[Part]:
    main = _main(report.findings)
    runs = [run for group in report.findings.groups for run in group.runs]
    if main is None or len(runs) < 3 or any(run["start_ns"] is None for run in runs):
        return
    first = min(run["start_ns"] for run in runs)
    figure = FIGURES[main]
    yield "<h2>Order and drift</h2>"
    yield '<p class="note">Each run at the time when it was measured. A slope here says why configurations are measured in blocks.</p>'
    points = {
        group.name: sorted(
            (run["experiment_id"], (run["start_ns"] - first) / 60e9, run[main]) for run in group.runs
        )
        for group in report.findings.groups
    }
    yield Drawing("drift", charts.drift("Drift", f"{figure.shown or main}, {figure.unit}", points))


SENSOR_HEADS = (
    "device",
    "sensor",
    "calibrated",
    "reads every, ms",
    "averages over, ms",
    "late by, ms",
    "sees, %",
    "counter over power, %",
)


def _sensors(report: Report) -> Iterator[Part]:
    if report.sensors:
        yield "<h2>What the power sensors see</h2>"
        yield '<p class="note">As found under a load that is known. A sensor that sees a part of the time can be fooled by a load in step with it; the energy counter cannot.</p>'
        yield _rows(SENSOR_HEADS, [_sensor_row(sensor) for sensor in report.sensors])


def _sensor_row(sensor: Sensor) -> list[str]:
    age = "" if sensor.age_sec is None else f", {duration_in_words(sensor.age_sec)} before"
    figures = (
        (sensor.power_refresh_sec, MS_PER_S),
        (sensor.averaging_window_sec, MS_PER_S),
        (sensor.delay_sec, MS_PER_S),
        (sensor.seen_share, 100),
        (sensor.counter_over_power, 100),
    )
    return [
        f"{sensor.device_name} ({sensor.device_uuid})",
        sensor.sensor or "not in this store",
        f"not: {sensor.reason}" if sensor.reason else f"in {sensor.run}{age}",
        *("" if value is None else f"{value * factor:.4g}" for value, factor in figures),
    ]


FACTOR_HEADS = ("factor", "value", "low", "high", "unit", "of", "source", "date")


def _footprint(report: Report) -> Iterator[Part]:
    """What the energy means for a site, and by which factors."""
    site = report.site
    if site is None:
        return
    yield "<h2>Footprint</h2>"
    yield '<p class="note">The measured energy times factors that were stated, not measured; carbon is without what making the hardware emitted.</p>'
    rows = []
    for name, figure in OF_A_SITE.items():
        values = [group[name] for group in site.groups]
        if any(value is not None for each in values for value in each):
            unit = figure.unit or site.currency
            means = [_mean(name, each, report.level) for each in values]
            rows.append([escape(figure.shown or name), escape(unit), *means])
    groups = report.findings.groups
    if rows:
        yield _rows_of_html(
            ["", "unit", *([group.name for group in groups] if len(groups) > 1 else [""])], rows
        )
    if site.reasons:
        yield f'<ul class="note">{"".join(f"<li>{escape(reason)}</li>" for reason in site.reasons)}</ul>'
    yield _rows(FACTOR_HEADS, [_factor_row(factor, site.hours) for factor in site.factors])


def _factor_row(factor: StatedFactor, hours: int) -> list[str]:
    low, high = ("" if bound is None else f"{bound:.6g}" for bound in (factor.low, factor.high))
    value = f"by time, {hours:,} rows" if factor.value is None else f"{factor.value:.6g}"
    return [factor.factor, value, low, high, factor.unit, factor.basis or "", factor.source, factor.date]


def _environment(report: Report) -> Iterator[Part]:
    groups = report.findings.groups
    names = ["", *(group.name for group in groups)]
    everything = [_environment_row(column, groups) for column in ENVIRONMENT]
    if len(groups) == 1:
        yield "<h2>Where it ran</h2>" + _rows([], everything)
    else:
        rows = [[key, *values] for key, values in report.findings.differences.items()]
        rows += [row for row in everything if len(set(row[1:])) > 1]
        yield "<h2>What differs</h2>"
        yield _rows(names, rows) if rows else "<p>Nothing in the plans, and nothing in the environment.</p>"
        yield f"<details><summary>The environment</summary>{_rows(names, everything)}</details>"
    ids = [
        [group.name, run, report.digests.get(run, "")]
        for group in groups
        for run in group.values("experiment_id")
    ]
    heads = ["", "run", "root digest of its log"]
    yield f"<details><summary>The runs</summary>{_rows(heads, ids)}</details>"


def _environment_row(column: str, groups: Sequence[Group]) -> list[str]:
    return [
        column,
        *(
            ", ".join(sorted({str(value or "not known") for value in group.values(column)}))
            for group in groups
        ),
    ]


def _again(report: Report) -> Iterator[Part]:
    yield "<h2>Made again</h2>"
    yield "<p>Every figure follows from the log, and is the same when it is derived again.</p>"
    yield f"<pre>{escape(chr(10).join(report.again))}</pre>"
    if report.plan:
        yield f"<details><summary>The plan</summary><pre>{escape(report.plan)}</pre></details>"


_SECTIONS: tuple[Callable[[Report], Iterator[Part]], ...] = (
    *(_head, _overview, _main_figure, _frontier, _costs, _utilisation, _table, _traces, _latencies),
    *(_drift, _sensors, _footprint, _environment, _again),
)
