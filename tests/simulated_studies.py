"""Studies on a machine that warms up and wanders, with no clock and no machine: figures of runs in the order in which they would be measured.

A run's figure is off by 1 % of its own, by a warming of 3 % that half an hour ends (three runs), and by a slow wandering of 1 %.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llem.study.plan import Slot, StudyPlan, schedule

NOISE, WARMING, WARMING_RUNS, WANDERING, PERSISTENCE = 0.01, 0.03, 3.0, 0.01, 0.8
BLOCKS = 5
Order = Literal["random", "sequential"]


def figures(
    number: int, *, ratios: Sequence[float] = (1.0, 1.0), blocks: int = BLOCKS, order: Order = "random"
) -> list[list[float]]:
    """Of study `number` the figure of every block of every cell, which truly is so many times that of the first."""
    slots = _slots(number, len(ratios), blocks, order)
    random = np.random.default_rng(number)
    off = _drift(random, len(slots)) + random.normal(0, NOISE, len(slots))
    found = np.empty((len(ratios), blocks))
    for slot, share in zip(slots, off, strict=True):
        found[slot.cell, slot.block] = ratios[slot.cell] * np.exp(share)
    return [[float(figure) for figure in cell] for cell in found]


def _slots(number: int, cells: int, blocks: int, order: Order) -> list[Slot]:
    if order == "random":
        return schedule(StudyPlan(seed=number), cells, blocks)
    return [Slot(block, 0, cell) for cell in range(cells) for block in range(blocks)]


def _drift(random: np.random.Generator, runs: int) -> NDArray[np.float64]:
    warming = WARMING * (1 - np.exp(-np.arange(runs) / WARMING_RUNS))
    steps = random.normal(0, WANDERING, runs)
    wandering = [steps[0]]
    for step in steps[1:]:
        wandering.append(PERSISTENCE * wandering[-1] + np.sqrt(1 - PERSISTENCE**2) * step)
    drift: NDArray[np.float64] = warming + np.array(wandering)
    return drift
