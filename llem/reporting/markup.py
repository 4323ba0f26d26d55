"""Pieces of HTML: tables, words that unfold, means with their intervals."""

from collections.abc import Iterator, Sequence
from html import escape

from llem.comparing.groups import Run
from llem.reporting.style import SERIES
from llem.reporting.svg import number
from llem.results.comparison import arithmetic_mean_of_runs, mean_of_runs

DIFFERENCES = ("energy_adjusted_j",)  # may be 0 or negative, and have no geometric mean to rely on
# Of a run alone: the bounds of a quantile, by its requests; where there are several runs, these say how far it can be off.
BOUNDS = {
    f"{series}_{quantile}_ms": (f"{series}_{quantile}_low_ms", f"{series}_{quantile}_high_ms")
    for series in ("ttft", "e2e")
    for quantile in ("p95", "p99")
}


def key(place: int) -> str:
    """The colour of a configuration."""
    return f'<span class="key k{place % SERIES}"></span>'


def folded(text: str, details: Sequence[str], *, kind: str, is_open: bool = False) -> str:
    """A word, and below it what unfolds."""
    head = f'<span class="{kind}">{escape(text)}</span>'
    if not details:
        return head
    listed = "".join(f"<li>{escape(detail)}</li>" for detail in details)
    return f"<details{' open' if is_open else ''}><summary>{head}</summary><ul>{listed}</ul></details>"


def interval(low: float | None, high: float | None) -> str:
    """Nothing where there is none."""
    return "" if low is None or high is None else f' <span class="of">[{number(low)}, {number(high)}]</span>'


def mean(name: str, values: Sequence[float | None], level: float) -> str:
    """Over a group's runs, with its interval; said not to be measured where any lacks it."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return '<span class="of">not measured</span>'
    if len(known) == 1:  # as the tables have it, for whoever points at it
        return f'<span title="{known[0]!r}">{number(known[0])}</span>'
    mean_of = arithmetic_mean_of_runs if name in DIFFERENCES or min(known) <= 0 else mean_of_runs
    value, low, high = mean_of(known, level=level)
    return number(value) + interval(low, high)


def bounds(name: str, runs: Sequence[Run]) -> str:
    """Those of a quantile of the only run."""
    if len(runs) > 1 or name not in BOUNDS:
        return ""
    return interval(*(runs[0].get(bound) for bound in BOUNDS[name]))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    return table_of_html(heads, [[escape(cell) for cell in row] for row in rows])


def table_of_html(heads: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
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
