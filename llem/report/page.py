"""The page: every section from the findings of a comparison, top to bottom, as text that no browser has to complete."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from llem._version import __version__
from llem.comparing import Compared, Findings, Group, said_of_costs
from llem.report import charts
from llem.report.charts import Span, Trace
from llem.report.svg import number
from llem.results.comparison import mean_of_runs
from llem.results.figures import EXPERIMENT_FIGURES, Figure

FIGURES: dict[str, Figure[Any]] = {figure.name: figure for figure in EXPERIMENT_FIGURES}
MAIN = (
    "energy_per_output_token_j",
    "total_energy_j",
    "duration_sec",
)  # the first that every run has is what the report is about
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
        "model_flops_utilisation",
    ),
)
ENVIRONMENT = (
    "host",
    "gpu_name",
    "driver_version",
    "cuda_version",
    "engine",
    "engine_version",
    "llem_version",
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { --paper: #fcfcfb; --ink: #1c1e21; --soft: #646b73; --grid: #e3e5e8; --card: #ffffff; --edge: #dfe2e6; --good: #1a7f4b; --bad: #b3401f;
  --c0: #2563a8; --c1: #c2571a; --c2: #23876b; --c3: #9b3f86; --c4: #8a7a12; --c5: #3f8fb0; --c6: #a83a4a; --c7: #5a5f9e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e6e8ea; --soft: #9aa2ab; --grid: #2b2f34; --card: #1d2024; --edge: #30353b;
  --good: #58c08a; --bad: #ee8a66; --c0: #6ea8e8; --c1: #ee955c; --c2: #58c2a0; --c3: #d584c0; --c4: #cdbb4d; --c5: #7cc4e0; --c6: #ea808e; --c7: #9ba0e4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; } .lead { font-size: 1.1rem; } .soft, .note { color: var(--soft); } .note { font-size: .9rem; }
.chart { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: .6rem; margin: .7rem 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; font: 12px system-ui, "Liberation Sans", sans-serif; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { color: var(--soft); font-weight: 600; }
.badges { display: flex; flex-wrap: wrap; gap: .4rem; list-style: none; margin: .8rem 0; padding: 0; }
details.badge { border: 1px solid var(--edge); border-radius: 999px; padding: .15rem .8rem; font-size: .87rem; background: var(--card); }
details.badge[open] { border-radius: 10px; } details.badge.bad > summary { color: var(--bad); } details.badge.good > summary { color: var(--good); }
summary { cursor: pointer; } .key { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .35em; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .9rem; margin: .4rem 0; }
code, pre { font: .87rem/1.5 ui-monospace, "Liberation Mono", monospace; } pre { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: .7rem; }
.grid { stroke: var(--grid); } .tick { fill: var(--soft); } .axis { fill: var(--ink); } .window { fill: var(--soft); font-size: 11px; }
.rule { stroke: var(--ink); stroke-width: 1.2; } .shade { fill: var(--grid); opacity: .55; } .w-measurement { fill: var(--c0); opacity: .09; }
.throttled { fill: var(--bad); opacity: .5; } .line, .faint, .dashed { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.faint { opacity: .35; } .dashed { stroke-dasharray: 5 4; } .band { opacity: .25; } .bar { stroke-width: 9; stroke-linecap: round; opacity: .32; }
@media print { body { max-width: none; } .chart { break-inside: avoid; } }
""" + "".join(
    f".dot.c{n}, .band.c{n}, .k{n} {{ fill: var(--c{n}); background: var(--c{n}); }} .line.c{n}, .faint.c{n}, .dashed.c{n}, .bar.c{n} {{ stroke: var(--c{n}); }}\n"
    for n in range(8)
)


class Report(NamedTuple):
    """All that a page shows."""

    title: str
    findings: Findings
    traces: Mapping[str, Sequence[Trace]]  # run -> its devices
    distributions: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]  # series -> group -> curve
    margin: float
    level: float
    again: Sequence[str]  # commands that make the page and its figures anew
    plan: str | None  # of a study, as it was written


def page(report: Report) -> str:
    """The whole document."""
    body = "\n".join(part for section in _SECTIONS for part in section(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _head(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.title)}</h1>"
    for sentence in _sentences(report):
        yield f'<p class="lead">{escape(sentence)}</p>'
    runs = sum(len(group.runs) for group in report.findings.groups)
    yield f'<p class="soft">{runs} run{"" if runs == 1 else "s"}; llem {escape(__version__)}. {_level(report)} intervals are of runs, by the t distribution.</p>'


def _level(report: Report) -> str:
    return f"{100 * report.level:g} %"


def _sentences(report: Report) -> Iterator[str]:
    """What was found about the figure that the report is about."""
    main = _main(report.findings)
    if main is None:
        yield "No figure was measured in every run."
        return
    reference, *others = report.findings.groups
    yield f"{reference.name}: {_said(main, reference, report.level)}."
    for group in others:
        found = next(
            (
                each
                for each in report.findings.compared
                if each.group == group.name and each.figure.name == main
            ),
            None,
        )
        if found is not None:
            yield f"{group.name}: {_said(main, group, report.level)}, {_ratio(found)} the reference's: {_verdict(found)}."


def _said(name: str, group: Group, level: float) -> str:
    figure = FIGURES[name]
    value, low, high = mean_of_runs(group.values(name), level=level)
    interval = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
    return f"{figure.shown or figure.name} {number(value)} {figure.unit}{interval}"


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


def _verdict(found: Compared) -> str:
    comparison = found.comparison
    p = "" if comparison.p_adjusted is None else f" (Holm p {comparison.p_adjusted:.2g})"
    return comparison.verdict + p + (f", {comparison.reason}" if comparison.reason else "")


def _main(findings: Findings) -> str | None:
    """The first figure that is above 0 in every run."""
    runs = [run for group in findings.groups for run in group.runs]
    return next((name for name in MAIN if all((run[name] or 0) > 0 for run in runs)), None)


def _badges(report: Report) -> Iterator[str]:
    yield '<ul class="badges">'
    for place, group in enumerate(report.findings.groups):
        for text, is_good, details in _facts_of(group):
            listed = "".join(f"<li>{escape(detail)}</li>" for detail in details)
            kind = "good" if is_good else "bad"
            head = f'<summary><span class="key k{place % 8}"></span>{escape(group.name)}: {escape(text)}</summary>'
            yield f'<li><details class="badge {kind}">{head}<ul>{listed}</ul></details></li>'
    yield "</ul>"
    doubts = [doubt for doubt in report.findings.doubts if ": not valid: " not in doubt]  # the badges say it
    if doubts:
        yield f'<ul class="note">{"".join(f"<li>{escape(doubt)}</li>" for doubt in doubts)}</ul>'


def _facts_of(group: Group) -> Iterator[tuple[str, bool, list[str]]]:
    """(what, whether it is as it should be, details) of a group."""
    valid = [run for run in group.runs if run["valid"]]
    reasons = [
        f"{run['experiment_id']}: {reason}" for run in group.runs for reason in run["invalid_reasons"] or ()
    ]
    yield (
        f"valid {len(valid)} of {len(group.runs)}",
        len(valid) == len(group.runs),
        reasons or ["no reason against any run"],
    )
    sources = sorted({run["energy_source"] or "not measured" for run in group.runs})
    yield (
        f"energy {', '.join(sources)}",
        sources in (["counter"], ["integrated"]),
        [f"{run['experiment_id']}: {run['energy_source'] or 'not measured'}" for run in group.runs],
    )
    warnings = [
        f"{run['experiment_id']}: {warning}" for run in group.runs for warning in run["warnings"] or ()
    ]
    if warnings:
        yield f"{len(warnings)} warning{'' if len(warnings) == 1 else 's'}", False, warnings


def _main_figure(report: Report) -> Iterator[str]:
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
    yield _chart(charts.dots(name, f"{name}, {figure.unit}", runs, means))
    ratios = {
        each.group: Span(each.comparison.ratio, each.comparison.ratio_low, each.comparison.ratio_high)
        for each in report.findings.compared
        if each.figure.name == main and each.comparison.ratio is not None
    }
    if ratios:
        yield f'<p class="note">Against {escape(report.findings.groups[0].name)}; grey: within {100 * report.margin:g} %, where a difference does not matter.</p>'
        yield _chart(charts.forest(f"{name}, ratios", ratios, margin=report.margin))


def _chart(svg: str) -> str:
    return f'<div class="chart">{svg}</div>'


def _legend(groups: Iterable[str]) -> str:
    keys = "".join(
        f'<span><span class="key k{place % 8}"></span>{escape(name)}</span>'
        for place, name in enumerate(groups)
    )
    return f'<div class="legend">{keys}</div>'


def _frontier(report: Report) -> Iterator[str]:
    runs = [run for group in report.findings.groups for run in group.runs]
    energy = "energy_per_output_token_j"
    rate = next((name for name in RATES if all(run[name] is not None for run in runs)), None)
    if rate is None or len(runs) < 2 or any(run[energy] is None for run in runs):
        return
    yield "<h2>Energy against throughput</h2>"
    yield _legend(group.name for group in report.findings.groups)
    points = {
        group.name: [(run["experiment_id"], run[rate], run[energy]) for run in group.runs]
        for group in report.findings.groups
    }
    axes = (f"{FIGURES[rate].shown or rate}", "J per output token")
    yield _chart(charts.frontier("Energy against throughput", axes, points))


def _costs(report: Report) -> Iterator[str]:
    """Of tokens and of idling, where only lengths differ."""
    if report.findings.costs is not None:
        yield "<h2>What a token costs</h2>"
        yield f"<p>{escape(said_of_costs(report.findings.costs))}.</p>"


def _traces(report: Report) -> Iterator[str]:
    if not any(report.traces.values()):
        yield "<h2>Power</h2><p>No power was sampled.</p>"
        return
    yield "<h2>Power</h2>"
    yield '<p class="note">Lines are means over a pixel of time, the band what its samples spanned; dashed: what the energy counter gained. Red: the device slowed itself down. Energies stand in the table; the area under a picture is none.</p>'
    for run, devices in report.traces.items():
        for device in devices:
            yield f'<p class="soft">{escape(run)}: {escape(device.name)}</p>'
            yield _chart(charts.trace(f"Power of {device.name}", device))


def _latencies(report: Report) -> Iterator[str]:
    drawn = {series: curves for series, curves in report.distributions.items() if any(curves.values())}
    if not drawn:
        return
    yield "<h2>Latency</h2>"
    yield _legend(group.name for group in report.findings.groups)
    names = {"ttft_ms": "time to first token, ms", "e2e_ms": "end to end, ms"}
    for series, curves in drawn.items():
        yield _chart(charts.distributions(names[series], names[series], curves))


def _table(report: Report) -> Iterator[str]:
    """Every figure: the geometric mean of each group's runs, and the ratio where there are two groups."""
    groups = report.findings.groups
    yield "<h2>Figures</h2>"
    heads = ["figure", "unit", *(group.name for group in groups)]
    rows = []
    for name in REPORTED:
        values = [group.values(name) for group in groups]
        if any(value is not None for each in values for value in each):
            figure = FIGURES[name]
            rows.append([figure.shown or name, figure.unit, *map(_mean, values)])
    yield _rows(heads, rows)
    yield '<p class="note">Means over runs (geometric, of figures above 0); “not measured” where a run lacks it.</p>'


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "not measured"
    if min(known) > 0:
        return number(mean_of_runs(known)[0])
    return number(sum(known) / len(known))


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _drift(report: Report) -> Iterator[str]:
    main = _main(report.findings)
    runs = [run for group in report.findings.groups for run in group.runs]
    if main is None or len(runs) < 3 or any(run["start_ns"] is None for run in runs):
        return
    first = min(run["start_ns"] for run in runs)
    figure = FIGURES[main]
    yield "<h2>Order and drift</h2>"
    yield '<p class="note">Each run at the time when it was measured. A slope here says why configurations are measured in blocks.</p>'
    yield _legend(group.name for group in report.findings.groups)
    points = {
        group.name: sorted(
            (run["experiment_id"], (run["start_ns"] - first) / 60e9, run[main]) for run in group.runs
        )
        for group in report.findings.groups
    }
    yield _chart(charts.drift("Drift", f"{figure.shown or main}, {figure.unit}", points))


def _environment(report: Report) -> Iterator[str]:
    groups = report.findings.groups
    names = ["", *(group.name for group in groups)]
    everything = [_environment_row(column, groups) for column in ENVIRONMENT]
    if len(groups) == 1:
        yield "<h2>Where it ran</h2>" + _rows(names, everything)
    else:
        rows = [[key, *values] for key, values in report.findings.differences.items()]
        rows += [row for row in everything if len(set(row[1:])) > 1]
        yield "<h2>What differs</h2>"
        yield _rows(names, rows) if rows else "<p>Nothing in the plans, and nothing in the environment.</p>"
        yield f"<details><summary>The environment</summary>{_rows(names, everything)}</details>"
    ids = [[group.name, ", ".join(group.values("experiment_id"))] for group in groups]
    yield f"<details><summary>The runs</summary>{_rows(['', 'runs'], ids)}</details>"


def _environment_row(column: str, groups: Sequence[Group]) -> list[str]:
    return [
        column,
        *(
            ", ".join(sorted({str(value or "not known") for value in group.values(column)}))
            for group in groups
        ),
    ]


def _again(report: Report) -> Iterator[str]:
    yield "<h2>Made again</h2>"
    yield "<p>Every figure follows from the log, and is the same when it is derived again.</p>"
    yield f"<pre>{escape(chr(10).join(report.again))}</pre>"
    if report.plan:
        yield f"<details><summary>The plan</summary><pre>{escape(report.plan)}</pre></details>"


_SECTIONS: tuple[Callable[[Report], Iterator[str]], ...] = (
    *(
        _head,
        _badges,
        _main_figure,
        _frontier,
        _costs,
        _table,
        _traces,
        _latencies,
        _drift,
        _environment,
        _again,
    ),
)
