"""The steady state of an experiment, from the tokens and the power of all its processes."""

from collections.abc import Sequence

import numpy as np

from llem.plan import ValidityPlan
from llem.projections.clocks import Clocks
from llem.projections.derive.process import Measured
from llem.results import PowerSamples, SteadyState, find_steady_state
from llem.units import NS_PER_S, seconds


def steady_state(
    measured: Sequence[Measured], clocks: Clocks, start_ns: int, end_ns: int, limits: ValidityPlan
) -> SteadyState:
    """The longest steady span, in seconds from `start_ns`, or why there is none. A shared device counts once."""
    tokens: list[float] = []
    power: dict[tuple[str, str], PowerSamples] = {}
    for seen in measured:
        shift_ns = clocks.wall_ns(seen.process.segment, 0) - start_ns
        times_ns = [at_ns for work in seen.work for at_ns in work.request.token_times_ns]
        tokens += ((np.array(times_ns, np.int64) + shift_ns) / NS_PER_S).tolist()
        for device, spanned in zip(seen.devices, seen.samples, strict=True):
            opened_sec = seconds(seen.spans[0][0] + shift_ns)
            at_sec, power_w = spanned[0].power
            power.setdefault(device.key, PowerSamples(at_sec=at_sec + opened_sec, power_w=power_w))
    return find_steady_state(
        start_sec=0.0,
        end_sec=seconds(end_ns - start_ns),
        token_times_sec=tokens,
        power=list(power.values()),
        tolerance=limits.steady_state_tolerance,
        min_duration_sec=limits.steady_state_min_s,
    )
