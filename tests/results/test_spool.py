"""Values that are kept in pieces come back as they were, from memory or from a file."""

from collections.abc import Sequence

import numpy as np
import pytest

from llem.results import percentiles
from llem.results.percentiles import Spool


def _all(kept: Spool, name: str) -> Sequence[float]:
    return [value for piece in kept.pieces(name) for value in piece.tolist()]


@pytest.mark.parametrize("held_bytes", [16, percentiles.HELD_BYTES])
def test_values_come_back_in_order(held_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, as often as they are asked for, and when some were added in between."""
    monkeypatch.setattr(percentiles, "HELD_BYTES", held_bytes)
    monkeypatch.setattr(percentiles, "_READ_VALUES", 3)
    kept = Spool()
    kept.add("gaps", np.arange(5.0))
    kept.add("others", np.array([9.0]))
    assert _all(kept, "gaps") == _all(kept, "gaps") == [0, 1, 2, 3, 4]
    kept.add("gaps", np.arange(5.0, 7.0))
    assert (_all(kept, "gaps"), _all(kept, "others")) == ([0, 1, 2, 3, 4, 5, 6], [9])
    assert (kept.count("gaps"), kept.count("none")) == (7, 0)
    assert _all(kept, "none") == []
