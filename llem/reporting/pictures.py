"""The sections of a page that draw: figures of runs, the frontier, power, latencies, drift."""

from collections.abc import Iterator
from html import escape

from llem.reporting import charts
from llem.reporting.charts import Span
from llem.reporting.facts import GAP_REQUESTS
from llem.reporting.markup import key
from llem.reporting.overview import RATES
from llem.reporting.report import FIGURES, Drawing, Part, Report
from llem.results.comparison import mean_of_runs

SLOW = {"ttft_p95_ms": "TTFT p95, ms", "e2e_p95_ms": "end p95, ms"}  # what throughput is paid with
SERIES_NAMES = {
    "ttft_ms": ("time-to-first-token", "time to first token, ms"),
    "itl_ms": ("time-between-tokens", "time between two tokens, ms"),
    "e2e_ms": ("end-to-end", "end to end, ms"),
}


def main_figure(report: Report) -> Iterator[Part]:
    """Every run of every group, and the ratios to the first."""
    main = report.main
    if main is None or sum(len(group.runs) for group in report.findings.groups) < 2:
        return
    figure = FIGURES[main]
    name = figure.title
    yield f"<h2>{escape(name[0].upper() + name[1:])}</h2>"
    yield f'<p class="note">A dot a run; the bar is the {report.level_in_words} interval of their mean. What the sensors may be off by is no part of it.</p>'
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


def frontier(report: Report) -> Iterator[Part]:
    """Energy of an output token beside throughput, and what that is paid with in time."""
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
    axes = (FIGURES[rate].title, "J per output token", SLOW.get(slow or "", ""))
    drawn = charts.frontier("Energy against throughput", axes, points, spans, below=below or None)
    yield Drawing("frontier", drawn)


def utilisation(report: Report) -> Iterator[Part]:
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


def traces(report: Report) -> Iterator[Part]:
    """Power of one run of each group."""
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
            return key(place) + escape(group.name)
    return ""


def latencies(report: Report) -> Iterator[Part]:
    """How long requests took, as shares of them."""
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


def drift(report: Report) -> Iterator[Part]:
    """The main figure by when a run was measured."""
    main = report.main
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
    yield Drawing("drift", charts.drift("Drift", f"{figure.title}, {figure.unit}", points))
