"""Ids of runs in texts for people: as short as they are told apart in their store, and good enough to be typed."""

import itertools
import re
from collections.abc import Callable

from llem.store import Store

LEAST = len("20260102-030405")  # the second in which a run was started
_ID = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{12}\b")


def shortener(store: Store) -> Callable[[str], str]:
    """What shortens the id of each experiment of the store wherever it stands in a text."""
    known = store.experiment_ids()
    shared = [0, *(_alike(*pair) for pair in itertools.pairwise(known)), 0]
    short = {
        run: run[: max(LEAST, before + 1, after + 1)]
        for run, (before, after) in zip(known, itertools.pairwise(shared), strict=True)
    }
    return lambda text: _ID.sub(lambda written: short.get(written[0], written[0]), text)


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    return sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    )
