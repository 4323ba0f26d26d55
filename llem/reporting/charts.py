"""The charts of a report, each from plain numbers: what is compared is drawn with every run in it."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from typing import NamedTuple

from llem.reporting.svg import BOTTOM, HEIGHT, NAME_CHARACTER, TOP, Plot, Scale, number, scale

ROW, LOW_ROW, MANY_ROWS = 34.0, 22.0, 12  # height of one configuration, and of one of many
LEAST_NAMES, MOST_NAMES = 110.0, 290.0  # width of its name
FAR = 8.0  # values that are so many times others lie on a logarithmic axis
STRIP, GAP, THROTTLE = 46.0, 20.0, 7.0  # heights below the power
STRIP_BELOW = 120.0  # below the frontier
TERA = 1e12
Values = Mapping[str, Sequence[tuple[str, float]]]  # configuration -> its runs: id and figure
Points = Mapping[str, Sequence[tuple[str, float, float]]]
Curve = Sequence[tuple[float, float]]


class Span(NamedTuple):
    """A best value with its interval; None where it has none."""

    value: float
    low: float | None
    high: float | None


class Curves(NamedTuple):
    """The distribution of all requests of a configuration, and that of each of its runs."""

    whole: Curve
    runs: Sequence[Curve]


class Trace(NamedTuple):
    """Power of one device of one run in even steps of time, seconds from the measurement's start."""

    run: str
    place: Mapping[str, object]  # where its samples stand in the tables
    name: str
    at_s: Sequence[float]
    low_w: Sequence[float]
    mean_w: Sequence[float]
    high_w: Sequence[float]
    temperature_c: Sequence[float | None]
    windows: Sequence[tuple[str, float, float]]  # kind, opened, closed
    counter_w: Sequence[tuple[float, float]]  # seconds, watts that the energy counter gained
    throttled: Sequence[tuple[float, float]]  # from and to


def dots(title: str, axis: str, runs: Values, means: Mapping[str, Span], *, far: Collection[str] = ()) -> str:
    """A row a configuration: a dot a run, a ring one that is far from the others, a bar for the interval of the mean."""
    row = _row_of(runs)
    plot = Plot(title=title, height=TOP + row * len(runs) + BOTTOM + 4, left=_room_of(runs))
    edges = [edge for span in means.values() for edge in span if edge is not None]
    x = _fitting([figure for group in runs.values() for _, figure in group] + edges, plot.left, plot.right)
    plot.x_axis(x, axis)
    rows = [TOP + row * (place + 0.5) for place in range(len(runs))]
    plot.names(rows, list(runs))
    for place, ((name, group), y) in enumerate(zip(runs.items(), rows, strict=True)):
        if (span := means.get(name)) and span.low is not None and span.high is not None:
            says = f"{name}: {number(span.value)} [{number(span.low)}, {number(span.high)}]"
            plot.bar((x.at(span.low), y), (x.at(span.high), y), series=place, says=says)
        for run, figure in group:
            plot.dot(x.at(figure), y, series=place, says=f"{run}: {number(figure)}", hollow=run in far)
    return plot.svg()


def forest(title: str, ratios: Mapping[str, Span], *, margin: float) -> str:
    """Ratios to the reference with their intervals, around 1 and the margin in which a difference does not matter."""
    row = _row_of(ratios)
    plot = Plot(title=title, height=TOP + row * len(ratios) + BOTTOM + 4, left=_room_of(ratios))
    edges = [edge for span in ratios.values() for edge in span if edge is not None]
    x = scale([*edges, 1 - margin, 1 + margin], plot.left, plot.right, is_log=True)
    plot.shade(x.at(1 / (1 + margin)), x.at(1 + margin))
    plot.x_axis(x, "ratio to the reference")
    plot.rule(x.at(1.0))
    rows = [TOP + row * (place + 0.5) for place in range(len(ratios))]
    plot.names(rows, list(ratios))
    for place, (span, y) in enumerate(zip(ratios.values(), rows, strict=True), start=1):
        if span.low is not None and span.high is not None:
            plot.bar((x.at(span.low), y), (x.at(span.high), y), series=place)
        plot.dot(x.at(span.value), y, series=place, says=number(span.value))
    return plot.svg()


def frontier(
    title: str,
    axes: Sequence[str],
    runs: Points,
    spans: Mapping[str, tuple[Span, Span]],
    *,
    below: Points | None = None,
) -> str:
    """Two figures against each other, a dot a run and a cross of intervals a configuration; down and to the right is where one wants to be.

    The dotted line joins the configurations that no other beats in both. `below` are the first figure and a third one, in a strip of its own under the same axis.
    """
    room = STRIP_BELOW + 2 * GAP if below else 0.0
    plot = Plot(title=title, height=HEIGHT * 1.15 + room)
    edges = [[edge for pair in spans.values() for edge in pair[axis] if edge is not None] for axis in (0, 1)]
    points = [point for group in runs.values() for point in group]
    x = _fitting([point[1] for point in points] + edges[0], plot.left, plot.right)
    y = _fitting([point[2] for point in points] + edges[1], plot.bottom - room, plot.top)
    plot.x_axis(x, axes[0])
    if below:
        top = plot.bottom - room + GAP / 2
        plot.block(plot.left, plot.right, top, GAP, kind="gap")
    plot.y_axis(y, axes[1])
    best = undominated([(first.value, second.value) for first, second in spans.values()])
    plot.path([(x.at(first), y.at(second)) for first, second in best], kind="pareto")
    for place, (name, group) in enumerate(runs.items()):
        _cross(plot, x, y, spans[name], series=place)
        for run, first, second in group:
            says = f"{name}, {run}: {number(first)}, {number(second)}"
            plot.dot(x.at(first), y.at(second), series=place, says=says)
        plot.name_beside(x.at(spans[name][0].value), y.at(spans[name][1].value), name)
    if below:
        _strip_below(plot, x, axes[2], below)
    return plot.svg()


def _strip_below(plot: Plot, x: Scale, axis: str, runs: Points) -> None:
    """What the first figure costs in the third one, a dot a run."""
    figures = [figure for group in runs.values() for _, _, figure in group]
    y = _fitting(figures, plot.bottom, plot.bottom - STRIP_BELOW)
    plot.y_axis(y, axis, ticks=y.ticks()[:: max(1, len(y.ticks()) // 3)])
    for place, (name, group) in enumerate(runs.items()):
        for run, first, figure in group:
            says = f"{name}, {run}: {number(first)}, {number(figure)}"
            plot.dot(x.at(first), y.at(figure), series=place, radius=3.0, says=says)


def roofline(title: str, points: Points, roofs: Sequence[tuple[float, float]]) -> str:
    """FLOP/s against FLOPs for each byte of weights, a dot a run, below what bandwidth (bytes/s) and peak (FLOP/s) of each roof let a device do."""
    plot = Plot(title=title, height=HEIGHT * 1.15, keys=list(points))
    ridges = [peak / bandwidth for bandwidth, peak in roofs]
    runs = [run for group in points.values() for run in group]
    x = scale([*(at for _, at, _ in runs), *ridges], plot.left, plot.right, is_log=True, room=0.12)
    rates = [rate / TERA for rate in (*(rate for _, _, rate in runs), *(peak for _, peak in roofs))]
    y = scale(rates, plot.bottom, plot.top, is_log=True, room=0.1)
    plot.x_axis(x, "FLOP for each byte of weights read")
    plot.y_axis(y, "TFLOP/s")
    for (bandwidth, peak), ridge in zip(roofs, ridges, strict=True):
        _roof(plot, x, y, ridge, peak / TERA, says=f"{bandwidth / TERA:.3g} TB/s, {peak / TERA:,.4g} TFLOP/s")
    for place, (name, group) in enumerate(points.items()):
        for run, intensity, rate in group:
            says = f"{name}, {run}: {number(intensity)} FLOP/byte, {number(rate / TERA)} TFLOP/s"
            plot.dot(x.at(intensity), y.at(rate / TERA), series=place, says=says)
    return plot.svg()


def _roof(plot: Plot, x: Scale, y: Scale, ridge: float, peak: float, *, says: str) -> None:
    """Up the slope of the bandwidth to its ridge, and level from there on."""
    start = max(x.low, ridge * y.low / peak)
    corners = ((start, start * peak / ridge), (ridge, peak), (x.high, peak))
    plot.path([(x.at(at), y.at(rate)) for at, rate in corners], kind="roof")
    plot.text(plot.right, y.at(peak) - 8, says, anchor="end")


def undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those beside which no other has more of the first and less of the second, from the least of the first on."""
    best: list[tuple[float, float]] = []
    for first, second in sorted(points, key=lambda point: (-point[0], point[1])):
        if not best or second < best[-1][1]:
            best.append((first, second))
    return best[::-1]


def _cross(plot: Plot, x: Scale, y: Scale, spans: tuple[Span, Span], *, series: int) -> None:
    first, second = spans
    if None in (*first, *second):
        return
    across = x.at(first.low or 0.0), x.at(first.high or 0.0)
    along = y.at(second.low or 0.0), y.at(second.high or 0.0)
    plot.cross(across, along, (x.at(first.value), y.at(second.value)), series=series)


def distributions(title: str, axis: str, groups: Mapping[str, Curves]) -> str:
    """Cumulative distributions on a logarithmic axis: share of requests that took no longer, a line a configuration, a faint one a run."""
    plot = Plot(title=title, keys=list(groups))
    x = scale(
        [at for curves in groups.values() for curve in (curves.whole, *curves.runs) for at, _ in curve],
        *(plot.left, plot.right),
        is_log=True,
    )
    y = scale([0.0, 1.0], plot.bottom, plot.top, room=0.0)
    plot.x_axis(x, axis)
    plot.y_axis(y, "share of requests")
    for kind in ("faint", "line"):
        for place, curves in enumerate(groups.values()):
            for curve in curves.runs if kind == "faint" else [curves.whole]:
                plot.line([(x.at(at), y.at(share)) for at, share in curve], series=place, kind=kind)
    return plot.svg()


def trace(title: str, drawn: Trace) -> str:
    """Power over time: what the samples spanned and their mean, the counter's power dashed, windows shaded; below, where the device was slowed down, and its temperature."""
    temperatures = [each for each in drawn.temperature_c if each is not None]
    below = GAP + THROTTLE + (STRIP + GAP if temperatures else 0.0)
    plot = Plot(title=title, height=HEIGHT + below)
    x = scale([*drawn.at_s], plot.left, plot.right, room=0.01)
    highest = max(*drawn.high_w, *(watts for _, watts in drawn.counter_w))
    y = scale([0.0, highest], plot.bottom - below, plot.top + 16, room=0.02)._replace(low=0.0)
    for kind, opened, closed in drawn.windows:
        start, end = (min(max(at, x.low), x.high) for at in (opened, closed))
        plot.shade(x.at(start), x.at(end), kind, kind=f"shade w-{kind}")
    plot.x_axis(x, "seconds from the start of the measurement")
    plot.y_axis(y, "power, W")
    upper = [(x.at(at), y.at(watts)) for at, watts in zip(drawn.at_s, drawn.high_w, strict=True)]
    lower = [(x.at(at), y.at(watts)) for at, watts in zip(drawn.at_s, drawn.low_w, strict=True)]
    plot.band(upper, lower, series=0)
    plot.line([(x.at(at), y.at(watts)) for at, watts in zip(drawn.at_s, drawn.mean_w, strict=True)], series=0)
    plot.path([(x.at(at), y.at(watts)) for at, watts in drawn.counter_w], kind="counter")
    for since, until in drawn.throttled:
        plot.block(x.at(since), x.at(until), plot.bottom - below + GAP / 2, THROTTLE, kind="throttled")
    if temperatures:
        _heat(plot, x, drawn, temperatures)
    return plot.svg()


def _heat(plot: Plot, x: Scale, drawn: Trace, temperatures: Sequence[float]) -> None:
    """The temperature in a strip of its own at the bottom."""
    y = scale(temperatures, plot.bottom, plot.bottom - STRIP, room=0.15)
    edges = sorted({min(temperatures), max(temperatures)})
    plot.y_axis(y, "°C", ticks=edges)
    known = [(at, heat) for at, heat in zip(drawn.at_s, drawn.temperature_c, strict=True) if heat is not None]
    turns = [
        point
        for place, point in enumerate(known)
        if place in (0, len(known) - 1) or not known[place - 1][1] == point[1] == known[place + 1][1]
    ]
    plot.path([(x.at(at), y.at(heat)) for at, heat in turns], kind="heat")


def drift(title: str, axis: str, runs: Points) -> str:
    """A figure against the time of its run: a slope here says why blocks were needed."""
    plot = Plot(title=title, height=HEIGHT * 0.85, keys=list(runs))
    points = [point for group in runs.values() for point in group]
    x = scale([minutes for _, minutes, _ in points], plot.left, plot.right)
    y = _fitting([figure for _, _, figure in points], plot.bottom, plot.top)
    plot.x_axis(x, "minutes from the first run")
    plot.y_axis(y, axis)
    for place, (name, group) in enumerate(runs.items()):
        plot.line([(x.at(minutes), y.at(figure)) for _, minutes, figure in group], series=place, kind="faint")
        for run, minutes, figure in group:
            plot.dot(x.at(minutes), y.at(figure), series=place, says=f"{name}, {run}: {number(figure)}")
    return plot.svg()


def _row_of(rows: Sized) -> float:
    return ROW if len(rows) <= MANY_ROWS else LOW_ROW


def _room_of(names: Iterable[str]) -> float:
    """The width that the longest name needs at the left."""
    longest = NAME_CHARACTER * max(map(len, names), default=0) + 24
    return min(max(longest, LEAST_NAMES), MOST_NAMES)


def _fitting(values: Sequence[float], start: float, end: float) -> Scale:
    """Logarithmic where some values are many times others."""
    is_log = min(values) > 0 and max(values) > FAR * min(values)
    return scale(values, start, end, is_log=is_log)
