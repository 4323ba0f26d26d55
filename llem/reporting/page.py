"""The page: its sections from top to bottom as one document, as text that no browser has to complete."""

import re
from collections.abc import Callable, Iterable, Iterator
from html import escape

from llem.reporting import zoom
from llem.reporting.overview import head, overview
from llem.reporting.pictures import drift, frontier, latencies, main_figure, traces, utilisation
from llem.reporting.report import Part, Report
from llem.reporting.style import STYLE
from llem.reporting.tables import again, costs, environment, figures, footprint, sensors
from llem_events.secrets import scrub

_PATHS = re.compile(r'( d="[^"]*")')


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


_SECTIONS: tuple[Callable[[Report], Iterator[Part]], ...] = (
    *(head, overview, main_figure, frontier, costs, utilisation, figures, traces, latencies),
    *(drift, sensors, footprint, environment, again),
)
