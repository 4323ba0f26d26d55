"""No label of a chart lies over another, on screens of any width: axes of long numbers, many ticks, configurations that are close."""

import html
import json
import re
from pathlib import Path

import pytest

from llem.reporting import charts
from llem.reporting.charts import Curves, Span, Trace
from llem.reporting.style import STYLE
from tests.report.chromium import drawn, needs_chromium

NAMES = [
    "batch_size=1, size=1",
    "batch_size=1, size=x",
    "batch_size=4, size=1",
    "batch_size=4, size=1, dtype=bfloat16, attention=eager",
]
OVERLAPS = """
const found = [];
for (const drawing of document.querySelectorAll("svg")) {
  const frame = drawing.closest("figure").getBoundingClientRect();
  const texts = [...drawing.querySelectorAll("text")].filter(text => getComputedStyle(text).display !== "none");
  const boxes = texts.map(text => [text.firstChild.textContent, text.getBoundingClientRect()]);
  const where = drawing.getAttribute("aria-label");
  boxes.forEach(([name, box], place) => {
    if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom) found.push([where, name, "the edge"]);
    for (const [other, its] of boxes.slice(0, place)) {
      const across = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const down = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      // a line of text is higher than its letters
      if (across > 0.5 && down > Math.min(box.height, its.height) / 3) found.push([where, name, other]);
    }
  });
}
document.body.dataset.found = JSON.stringify(found);
"""


def runs_of(figures: list[float]) -> dict[str, list[tuple[str, float]]]:
    """Two runs of each configuration, close to each other."""
    return {
        name: [("run-1", figure), ("run-2", figure * 1.001)]
        for name, figure in zip(NAMES, figures, strict=True)
    }


def spans_of(figures: list[float]) -> dict[str, Span]:
    return {
        name: Span(figure, figure * 0.98, figure * 1.02) for name, figure in zip(NAMES, figures, strict=True)
    }


def trace(high_w: float, temperature_c: float) -> Trace:
    at_s = [float(second) for second in range(-10, 60)]
    return Trace(
        run="run-1",
        place={},
        name="GPU 0",
        at_s=at_s,
        low_w=[high_w / 2] * len(at_s),
        mean_w=[high_w * 0.9] * len(at_s),
        high_w=[high_w] * len(at_s),
        temperature_c=[temperature_c] * len(at_s),
        windows=[
            ("baseline", -9.0, -0.5),
            ("warmup", -0.5, 5.0),
            ("measurement", 5.0, 14.0),
            ("baseline", 14.0, 55.0),
        ],
        counter_w=[(0.0, high_w), (1.0, high_w)],
        throttled=[],
    )


def drawings() -> list[str]:
    """Of every kind of chart some with the longest labels."""
    drawn = []
    for energies in (
        [0.001234, 0.001239, 0.001241, 0.001243],
        [0.00226, 12.5, 1_234.5, 98_765.0],
        [0.21, 0.212, 0.0529, 0.053],
    ):
        title = f"energies {energies}"
        rates = [1_234_567.0, 1_234_999.0, 4_321_000.0, 4_321_500.0]
        figures, means = runs_of(energies), spans_of(energies)
        drawn.append(charts.dots(f"dots of {title}", "energy per output token, J", figures, means))
        ratios = {
            name: Span(figure / energies[0], figure / energies[0] * 0.9, figure / energies[0] * 1.1)
            for name, figure in zip(NAMES, energies, strict=True)
        }
        drawn.append(charts.forest(f"forest of {title}", ratios, margin=0.02))
        points = {
            name: [(f"run-{name}", rate, energy)]
            for name, rate, energy in zip(NAMES, rates, energies, strict=True)
        }
        both = {name: (spans_of(rates)[name], means[name]) for name in NAMES}
        slow = {
            name: [(f"run-{name}", rate, 12_345.0 + rate / 1e6)]
            for name, rate in zip(NAMES, rates, strict=True)
        }
        axes = ("output tokens/s", "J per output token", "TTFT p95, ms")
        drawn.append(charts.frontier(f"frontier of {title}", axes, points, both, below=slow))
        drawn.append(charts.drift(f"drift of {title}", "energy per output token, J", points))
        curve = [(energy, place / 3) for place, energy in enumerate(energies)]
        drawn.append(
            charts.distributions(
                f"distributions of {title}",
                "time to first token, ms",
                {name: Curves(curve, [curve]) for name in NAMES},
            )
        )
    drawn.append(
        charts.roofline(
            "roofline",
            {name: [("run", 10.0 * place, 1e12 * place)] for place, name in enumerate(NAMES, 1)},
            [(2e12, 1e15)],
        )
    )
    return [
        *drawn,
        *(
            charts.trace(f"trace of {watts} W", trace(watts, heat))
            for watts, heat in ((98_765.4, 101.5), (0.0123, 40.0))
        ),
    ]


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", [400, 800, 1300])
@pytest.mark.parametrize("columns", ["one", "two"])
def test_no_label_lies_over_another(width: int, columns: str, tmp_path: Path) -> None:
    """Nor beyond the edge of its chart."""
    page = tmp_path / "charts.html"
    figures = "".join(f"<div><figure>{drawing}</figure></div>" for drawing in drawings())
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style><body style="width: {width}px">'
        f'<div class="{columns}">{figures}</div><script>{OVERLAPS}</script>',
        encoding="utf-8",
    )
    assert overlaps(page, width, tmp_path / "profile") == []


def overlaps(page: Path, width: int, profile: Path) -> list[list[str]]:
    """Drawing, label and the label that it lies over."""
    shown, _ = drawn(page, profile, width=width)
    (found,) = re.findall('data-found="(.*?)"', shown)
    listed: list[list[str]] = json.loads(html.unescape(found))
    return listed
