"""Charts as SVG text: a plot with axes and the marks in it. Colours are CSS variables of the page, so that it can be light or dark.

Everything that comes from a measurement goes through `escape`.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from llem.reporting.style import ALONE, SERIES

WIDTH, HEIGHT = 720.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 16.0, 12.0, 48.0
CHARACTER = 6.6  # width of one in a label
NAME_CHARACTER = 9.4  # on a narrow screen, where labels are larger
DIGIT = 10.5  # of a tick, there
NAME_HEIGHT = 20.0  # there
MOST_NAMES = 8  # above and below each other
AXIS_NAME = 20.0  # width of the name beside an axis
MAX_TICKS = 7
NARROW = 3.0  # a logarithmic axis over no more than this has the ticks of an even one
LOG_FACTORS = (
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
)
NEXT_TO_EQUAL = 0.005  # of their middle to each side: below this, ticks of four digits would be the same
KEY_ROW = 18.0  # height of a row of the legend
Point = tuple[float, float]


class Scale(NamedTuple):
    """A span of values laid over a span of pixels, evenly or by logarithms."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (
            (math.log10(each) for each in (self.low, self.high, value))
            if self.is_log
            else (self.low, self.high, value)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values, of which at most seven stand on an axis."""
        if self.is_log and self.high / self.low > NARROW:
            return _log_ticks(self.low, self.high)
        step = _round_step((self.high - self.low) / (MAX_TICKS - 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def scale(
    values: Sequence[float], start: float, end: float, *, is_log: bool = False, room: float = 0.06
) -> Scale:
    """One in which all values lie with some room on both sides; a single value stands in the middle, and values that hardly differ close to it."""
    low, high = min(values), max(values)
    if 0 < high - low < NEXT_TO_EQUAL * abs(low + high):
        low, high = ((low + high) / 2 * (1 + side * NEXT_TO_EQUAL) for side in (-1, 1))
        low, high = min(low, high), max(low, high)
    if is_log:
        spread = (high / low) ** room if high > low else 1.5
        return Scale(low / spread, high * spread, start, end, is_log=True)
    spread = (high - low) * room if high > low else abs(low) * 0.1 or 1.0
    return Scale(low - spread, high + spread, start, end)


def _round_step(step: float) -> float:
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    """As many round values as there is room for."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for factors in LOG_FACTORS:
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in found if low <= tick <= high]
        if len(inside) <= MAX_TICKS:
            return inside
    return inside[:: math.ceil(len(inside) / MAX_TICKS)]


def number(value: float) -> str:
    """A value as a label has it."""
    if value == 0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


class Plot:
    """A drawing with two axes; marks are added in data coordinates, in the order in which they lie over each other."""

    def __init__(
        self, *, title: str, height: float = HEIGHT, left: float = LEFT, keys: Sequence[str] = ()
    ) -> None:
        """`keys` are the names of the series; where there are several, a legend stands above."""
        self._title = title
        self.left, self.right, self.top = left, WIDTH - RIGHT, TOP
        self._marks: list[str] = []
        self._y_names: list[tuple[float, str]] = []  # each with its middle
        self._beside = 0.0  # width that ticks and names need beyond the left edge
        self._taken: list[tuple[float, float, float]] = []  # start, end and line of names beside points
        if len(keys) > 1:
            self._legend(keys)
        self._height = height + self.top - TOP
        self.bottom = self._height - BOTTOM

    def x_axis(self, x: Scale, name: str, *, ticks: Sequence[float] | None = None) -> None:
        """Ticks and name below, light lines upwards."""
        for tick in x.ticks() if ticks is None else ticks:
            at = x.at(tick)
            self._add(
                f'<line class="grid" x1="{at:.1f}" y1="{self.top:.1f}" x2="{at:.1f}" y2="{self.bottom:.1f}"/>'
            )
            self.text(at, self.bottom + 20, number(tick), anchor="middle")
        self.text((self.left + self.right) / 2, self._height - 6, name, anchor="middle", kind="axis")

    def y_axis(self, y: Scale, name: str, *, ticks: Sequence[float] | None = None) -> None:
        """Ticks to the left, the name beside them, light lines to the right."""
        for tick in y.ticks() if ticks is None else ticks:
            at, label = y.at(tick), number(tick)
            self._beside = max(self._beside, AXIS_NAME + DIGIT * len(label) + 6 - self.left)
            self._add(
                f'<line class="grid" x1="{self.left:.1f}" y1="{at:.1f}" x2="{self.right:.1f}" y2="{at:.1f}"/>'
            )
            self.text(self.left - 6, at + 4, label, anchor="end")
        self._y_names.append(((y.start + y.end) / 2, name))

    def names(self, y: Sequence[float], names: Sequence[str]) -> None:
        """A name at the left of each row."""
        room = int((self.left - 12) / NAME_CHARACTER)
        for at, name in zip(y, names, strict=True):
            self.text(
                self.left - 8,
                at + 4,
                name if len(name) <= room else name[: room - 1] + "…",
                anchor="end",
                kind="name",
                full=name,
            )

    def dot(
        self, x: float, y: float, *, series: int, radius: float = 4.0, says: str = "", hollow: bool = False
    ) -> None:
        """A mark of one run; what it says shows under the pointer."""
        kind = f"c{series % SERIES}" + (" hollow" if hollow else "")
        self._add(
            f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{_tip(says)}</circle>'
        )

    def bar(self, start: Point, end: Point, *, series: int, says: str = "") -> None:
        """A thick line from one point to another, as of an interval."""
        self._add(
            f'<line class="bar c{series % SERIES}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}">'
            f"{_tip(says)}</line>"
        )

    def line(self, points: Sequence[Point], *, series: int, kind: str = "line") -> None:
        """A line through all points."""
        self.path(points, kind=f"{kind} c{series % SERIES}")

    def path(self, points: Sequence[Point], *, kind: str) -> None:
        """A line of no series."""
        if len(points) > 1:
            self._add(f'<path class="{kind}" d="{_steps(points)}"/>')

    def band(self, upper: Sequence[Point], lower: Sequence[Point], *, series: int) -> None:
        """The area between two lines."""
        path = _steps([*upper, *reversed(lower)])
        self._add(f'<path class="band c{series % SERIES}" d="{path}z"/>')

    def cross(self, x: Point, y: Point, middle: Point, *, series: int) -> None:
        """Two thin lines through a middle: from one x to another, and from one y to another."""
        path = f"M{x[0]:.1f} {middle[1]:.1f}H{x[1]:.1f}M{middle[0]:.1f} {y[0]:.1f}V{y[1]:.1f}"
        self._add(f'<path class="cross c{series % SERIES}" d="{path}"/>')

    def block(self, start: float, end: float, top: float, height: float, *, kind: str) -> None:
        """A filled part of a strip."""
        self._add(
            f'<rect class="{kind}" x="{start:.1f}" y="{top:.1f}" width="{max(end - start, 1.0):.1f}" height="{height:.1f}"/>'
        )

    def shade(self, start: float, end: float, name: str = "", *, kind: str = "shade") -> None:
        """A part of the plot from one x to another, over its whole height, with its name at the top."""
        self._add(
            f'<rect class="{kind}" x="{start:.1f}" y="{self.top:.1f}" width="{max(end - start, 0.5):.1f}" '
            f'height="{self.bottom - self.top:.1f}"/>'
        )
        if 0 < len(name) * CHARACTER < end - start:
            self.text((start + end) / 2, self.top + 12, name, anchor="middle", kind="window")

    def rule(self, x: float) -> None:
        """A line from top to bottom that others are compared with."""
        self._add(
            f'<line class="rule" x1="{x:.1f}" y1="{self.top:.1f}" x2="{x:.1f}" y2="{self.bottom:.1f}"/>'
        )

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "start", kind: str = "tick", full: str = ""
    ) -> None:
        """Words at a place; `full` shows under the pointer."""
        tip = _tip(full) if full and full != words else ""
        self._add(
            f'<text class="{kind}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(words)}{tip}</text>'
        )

    def name_beside(self, x: float, y: float, name: str) -> None:
        """A name beside a point: to the right where there is room, above or below the names that are there already."""
        width = NAME_CHARACTER * len(name)
        fits = x + 10 + width < self.right
        start = x + 10 if fits else x - 10 - width
        lines = (y - 9 + side * step * NAME_HEIGHT for step in range(MOST_NAMES) for side in (-1, 1))
        line = next((line for line in lines if self._is_free(start, start + width, line)), y - 9)
        self._taken.append((start, start + width, line))
        self.text(x + (10 if fits else -10), line, name, anchor="start" if fits else "end", kind="name")

    def _is_free(self, start: float, end: float, line: float) -> bool:
        """Whether no other name stands there, and it is within the plot."""
        return self.top + NAME_HEIGHT / 2 < line < self.bottom and not any(
            start < its_end and its_start < end and abs(line - its_line) < NAME_HEIGHT
            for its_start, its_end, its_line in self._taken
        )

    def svg(self) -> str:
        """The whole drawing, wider at the left where the ticks of the y axis are long."""
        left, width = -self._beside, WIDTH + self._beside
        names = (
            f'<text class="axis" text-anchor="middle" transform="rotate(-90 {left + 12:g} {middle:.1f})" '
            f'x="{left + 12:g}" y="{middle:.1f}">{escape(name)}</text>'
            for middle, name in self._y_names
        )
        return (
            f'<svg viewBox="{left:g} 0 {width:g} {self._height:g}" role="img" aria-label="{escape(self._title, quote=True)}">'
            + "".join((*self._marks, *names))
            + "</svg>"
        )

    def _legend(self, keys: Sequence[str]) -> None:
        """A dot and a name for each series, in as many rows as they need."""
        x, y = LEFT, TOP
        for place, name in enumerate(keys):
            width = NAME_CHARACTER * len(name) + 30
            if x > LEFT and x + width > WIDTH - RIGHT:
                x, y = LEFT, y + KEY_ROW
            self.dot(x + 4, y, series=place)
            self.text(x + 13, y + 4, name, kind="name")
            x += width
        self.top = y + KEY_ROW

    def _add(self, mark: str) -> None:
        self._marks.append(mark)


def _steps(points: Sequence[Point]) -> str:
    """A path through points, in tenths of a pixel: each as its distance from the one before, which is half as long to write."""
    parts, at = [], (0, 0)
    for x, y in points:
        to = round(10 * x), round(10 * y)
        across, down = ((after - before) / 10 for before, after in zip(at, to, strict=True))
        parts.append(f"{across:g}{'' if down < 0 else ' '}{down:g}")
        at = to
    return "m" + " ".join(parts)


def alone(svg: str) -> str:
    """A drawing as a file of its own: light, whoever shows it."""
    size = f'width="{WIDTH:g}" xmlns="http://www.w3.org/2000/svg"'
    head, _, marks = svg.partition(">")
    return f"{head.replace('<svg', f'<svg {size}', 1)}><style>{ALONE}</style>{marks}\n"


def _tip(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""
