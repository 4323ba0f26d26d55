"""Energy from a sensor that sees a part of the time: what a load in step with it could hide.

Of every refresh the sensor sees a share s, and takes the rest for the same. The rest can have been anything from the least to the most power of the
device, in every refresh alike where the load keeps step with the sensor. Where the load is shifted n times by a random part of a refresh, what is seen is
right on the average, and off by the standard deviation of a power between the least and the most, at most half of that range, over the square root of n.
"""

import math

STANDARD_DEVIATIONS = 3.0
NEARLY_ALL = 0.95  # of the time: a sensor that may see so much is not taken for a part-time one


def hidden_j(
    energy_j: float,
    *,
    duration_sec: float,
    seen_share: float,
    least_w: float,
    most_w: float,
    shifts: int = 0,
) -> float:
    """How far integrated power can be from the truth, in joules, after so many random shifts of the load; 0: it may keep step."""
    unseen = 1 - seen_share
    in_step_j = unseen * max(most_w * duration_sec - energy_j, energy_j - least_w * duration_sec)
    if not shifts:
        return in_step_j
    deviation_j = min(unseen, 0.5) * (most_w - least_w) * duration_sec / math.sqrt(shifts)
    return min(in_step_j, STANDARD_DEVIATIONS * deviation_j)
