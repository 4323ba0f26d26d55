"""Looking closer at the power of a run: uPlot, the numbers that it draws, and the policy that lets nothing else run.

A browser without JavaScript shows the page's own drawings, which hold the same.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from llem.reporting.charts import Trace

TICKS_PER_S = 10_000  # of a sample's time
STEPS_PER_W = 10
Floats = npt.NDArray[np.float64]
_UPLOT = files("llem.reporting") / "uplot"


def style() -> str:
    """uPlot's own."""
    return (_UPLOT / "uPlot.min.css").read_text(encoding="utf-8")


def script() -> str:
    """uPlot, and what puts it in the place of the drawings."""
    ours = (files("llem.reporting") / "zoom.js").read_text(encoding="utf-8")
    return (_UPLOT / "uPlot.iife.min.js").read_text(encoding="utf-8") + ours


def policy(script: str | None) -> str:
    """Nothing is loaded from anywhere, and no script runs but this one."""
    allowed = "" if script is None else f"script-src '{_digest(script)}'; "
    return f"default-src 'none'; {allowed}style-src 'unsafe-inline'; img-src data:"


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def numbers(drawn: Sequence[Trace]) -> str:
    """What is drawn of each device, as JSON that no mark in it can end."""
    return json.dumps([_of(trace) for trace in drawn], separators=(",", ":")).replace("<", "\\u003c")


def _of(trace: Trace) -> dict[str, object]:
    return {
        "at": _steps(trace.at_s, 1000),
        "low": _steps(trace.low_w, 10),
        "mean": _steps(trace.mean_w, 10),
        "high": _steps(trace.high_w, 10),
        "temperature": _steps(trace.temperature_c, 1) if any(trace.temperature_c) else [],
        "throttled": [[round(since, 3), round(until, 3)] for since, until in trace.throttled],
        "counter": [[round(at, 3), round(watts, 1)] for at, watts in trace.counter_w],
        "windows": [[kind, round(opened, 3), round(closed, 3)] for kind, opened, closed in trace.windows],
    }


def _steps(values: Sequence[float | None], per: int) -> list[int | None]:
    """Each value as its distance from the one before, in whole parts of one."""
    steps: list[int | None] = []
    last = 0
    for value in values:
        if value is None:
            steps.append(None)
            continue
        steps.append(round(value * per) - last)
        last = round(value * per)
    return steps


def packed(at_s: Floats, power_w: Floats) -> str:
    """All samples of a device as text: differences of tenths of a millisecond and of tenths of a watt, byte by byte, compressed."""
    planes = [_planes(at_s * TICKS_PER_S), _planes(power_w * STEPS_PER_W)]
    return base64.b64encode(gzip.compress(b"".join(planes), 9, mtime=0)).decode()


def _planes(values: Floats) -> bytes:
    """The lowest byte of every difference, then the next; zigzag, so that small ones of both signs leave the higher bytes 0."""
    steps = np.diff(np.rint(values), prepend=0.0)
    zigzag = np.where(steps < 0, -2 * steps - 1, 2 * steps).astype("<u4")
    return bytes(zigzag.view(np.uint8).reshape(-1, 4).T.tobytes())
