"""Power curves of simulated devices, with their exact energy."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from llem.errors import MeterError
from llem.plan import SimulatedMeterPlan

Row = tuple[float, float]  # seconds, watts


class Curve:
    """Watts over seconds, linear between rows, repeated for ever with the last row's time as the period."""

    def __init__(self, rows: Sequence[Row]) -> None:
        if not rows or rows[0][0] != 0 or any(later[0] < earlier[0] for earlier, later in pairwise(rows)):
            raise MeterError(
                "power curve",
                found=list(rows)[:3],
                expected="rows of (seconds, watts) that start at 0 s and go forward",
            )
        self._rows = [*rows, (1.0, rows[0][1])] if rows[-1][0] == 0 else list(rows)
        self._times = [second for second, _ in self._rows]
        self._energies = [
            0.0,
            *accumulate((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(self._rows)),
        ]
        self.period_s = self._times[-1]

    def power_w(self, at_s: float) -> float:
        """Watts at a time; at a step, the value after it."""
        (start_s, start_w), (end_s, end_w) = self._around(at_s % self.period_s)
        return start_w + (end_w - start_w) * (at_s % self.period_s - start_s) / (end_s - start_s)

    def energy_j(self, until_s: float) -> float:
        """Joules between time 0 and `until_s`, exact."""
        periods, rest_s = divmod(until_s, self.period_s)
        (start_s, start_w), _ = self._around(rest_s)
        within = (
            self._energies[bisect_right(self._times, rest_s) - 1]
            + (rest_s - start_s) * (start_w + self.power_w(rest_s)) / 2
        )
        return periods * self._energies[-1] + within

    def _around(self, at_s: float) -> tuple[Row, Row]:
        index = bisect_right(self._times, at_s)
        return self._rows[index - 1], self._rows[index]


def curve_of(plan: SimulatedMeterPlan) -> Curve:
    """The plan's curve: named ones swing between a fifth of `power_w` and all of it."""
    high_w, low_w, period_s = plan.power_w, plan.power_w / 5, plan.period_s
    match plan.curve:
        case "constant":
            return Curve([(0.0, high_w), (period_s, high_w)])
        case "square":
            half_s = period_s / 2
            return Curve([(0.0, high_w), (half_s, high_w), (half_s, low_w), (period_s, low_w)])
        case "ramp":
            return Curve([(0.0, low_w), (period_s, high_w)])
        case rows:
            return Curve(rows)
