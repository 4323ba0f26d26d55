"""The charts of a report, each from plain numbers: what is compared is drawn with every run in it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llem.report.svg import HEIGHT, TOP, Plot, number, scale

ROW = 34.0  # height of one configuration
NAMES = 190.0  # width of its name
Values = Mapping[str, Sequence[tuple[str, float]]]  # configuration -> its runs: id and figure


class Span(NamedTuple):
    """A best value with its interval; None where it has none."""

    value: float
    low: float | None
    high: float | None


class Trace(NamedTuple):
    """Power of one device of one run in even steps of time, seconds from the measurement's start."""

    name: str
    at_s: Sequence[float]
    low_w: Sequence[float]
    mean_w: Sequence[float]
    high_w: Sequence[float]
    windows: Sequence[tuple[str, float, float]]  # kind, opened, closed
    counter_w: Sequence[tuple[float, float]]  # seconds, watts that the energy counter gained
    throttled_s: Sequence[float]


def dots(title: str, axis: str, runs: Values, means: Mapping[str, Span]) -> str:
    """A row a configuration: a dot a run, a bar for the interval of the mean."""
    plot = Plot(title=title, height=TOP + ROW * len(runs) + 48, left=NAMES)
    edges = [edge for span in means.values() for edge in span if edge is not None]
    x = scale([figure for group in runs.values() for _, figure in group] + edges, plot.left, plot.right)
    plot.x_axis(x, axis)
    rows = [TOP + ROW * (place + 0.5) for place in range(len(runs))]
    plot.names(rows, list(runs))
    for place, ((name, group), y) in enumerate(zip(runs.items(), rows, strict=True)):
        if (span := means.get(name)) and span.low is not None and span.high is not None:
            says = f"{name}: {number(span.value)} [{number(span.low)}, {number(span.high)}]"
            plot.bar((x.at(span.low), y), (x.at(span.high), y), series=place, says=says)
        for run, figure in group:
            plot.dot(x.at(figure), y, series=place, says=f"{run}: {number(figure)}")
    return plot.svg()


def forest(title: str, ratios: Mapping[str, Span], *, margin: float) -> str:
    """Ratios to the reference with their intervals, around 1 and the margin in which a difference does not matter."""
    plot = Plot(title=title, height=TOP + ROW * len(ratios) + 48, left=NAMES)
    edges = [edge for span in ratios.values() for edge in span if edge is not None]
    x = scale([*edges, 1 - margin, 1 + margin], plot.left, plot.right, is_log=True)
    plot.shade(x.at(1 / (1 + margin)), x.at(1 + margin))
    plot.x_axis(x, "ratio to the reference")
    plot.rule(x.at(1.0))
    rows = [TOP + ROW * (place + 0.5) for place in range(len(ratios))]
    plot.names(rows, list(ratios))
    for place, (span, y) in enumerate(zip(ratios.values(), rows, strict=True), start=1):
        if span.low is not None and span.high is not None:
            plot.bar((x.at(span.low), y), (x.at(span.high), y), series=place)
        plot.dot(x.at(span.value), y, series=place, says=number(span.value))
    return plot.svg()


def frontier(
    title: str, axes: tuple[str, str], runs: Mapping[str, Sequence[tuple[str, float, float]]]
) -> str:
    """Two figures against each other, a dot a run; down and to the right is where one wants to be."""
    plot = Plot(title=title)
    points = [point for group in runs.values() for point in group]
    x = scale([first for _, first, _ in points], plot.left, plot.right)
    y = scale([second for _, _, second in points], plot.bottom, plot.top)
    plot.x_axis(x, axes[0])
    plot.y_axis(y, axes[1])
    for place, (name, group) in enumerate(runs.items()):
        for run, first, second in group:
            says = f"{name}, {run}: {number(first)}, {number(second)}"
            plot.dot(x.at(first), y.at(second), series=place, says=says)
    return plot.svg()


def distributions(title: str, axis: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Cumulative distributions on a logarithmic axis: share of requests that took no longer, a line a configuration."""
    plot = Plot(title=title)
    x = scale([at for curve in curves.values() for at, _ in curve], plot.left, plot.right, is_log=True)
    y = scale([0.0, 1.0], plot.bottom, plot.top, room=0.0)
    plot.x_axis(x, axis)
    plot.y_axis(y, "share of requests")
    for place, curve in enumerate(curves.values()):
        plot.line([(x.at(at), y.at(share)) for at, share in curve], series=place)
    return plot.svg()


def trace(title: str, drawn: Trace) -> str:
    """Power over time: what the samples spanned and their mean, the counter's power dashed, windows shaded, throttling marked."""
    plot = Plot(title=title)
    x = scale([*drawn.at_s], plot.left, plot.right, room=0.01)
    highest = max(*drawn.high_w, *(watts for _, watts in drawn.counter_w))
    y = scale([0.0, highest], plot.bottom, plot.top, room=0.05)._replace(low=0.0)
    for kind, opened, closed in drawn.windows:
        plot.shade(x.at(max(opened, x.low)), x.at(min(closed, x.high)), kind, kind=f"shade w-{kind}")
    plot.x_axis(x, "seconds from the start of the measurement")
    plot.y_axis(y, "power, W")
    upper = [(x.at(at), y.at(watts)) for at, watts in zip(drawn.at_s, drawn.high_w, strict=True)]
    lower = [(x.at(at), y.at(watts)) for at, watts in zip(drawn.at_s, drawn.low_w, strict=True)]
    plot.band(upper, lower, series=0)
    plot.line([(x.at(at), y.at(watts)) for at, watts in zip(drawn.at_s, drawn.mean_w, strict=True)], series=0)
    plot.line([(x.at(at), y.at(watts)) for at, watts in drawn.counter_w], series=1, kind="dashed")
    for at in drawn.throttled_s:
        plot.shade(x.at(at), x.at(at) + 1.5, kind="throttled")
    return plot.svg()


def drift(title: str, axis: str, runs: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
    """A figure against the time of its run: a slope here says why blocks were needed."""
    plot = Plot(title=title, height=HEIGHT * 0.8)
    points = [point for group in runs.values() for point in group]
    x = scale([minutes for _, minutes, _ in points], plot.left, plot.right)
    y = scale([figure for _, _, figure in points], plot.bottom, plot.top)
    plot.x_axis(x, "minutes from the first run")
    plot.y_axis(y, axis)
    for place, (name, group) in enumerate(runs.items()):
        plot.line([(x.at(minutes), y.at(figure)) for _, minutes, figure in group], series=place, kind="faint")
        for run, minutes, figure in group:
            plot.dot(x.at(minutes), y.at(figure), series=place, says=f"{name}, {run}: {number(figure)}")
    return plot.svg()
