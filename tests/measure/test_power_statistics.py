"""Mean and spread of power are those of numpy, without keeping the samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.measure.sampler import PowerStatistics
from llem_events import Reading


@given(st.lists(st.integers(0, 1_000_000) | st.none(), max_size=50))
def test_statistics_equal_numpy(powers_mw: list[int | None]) -> None:
    """Missing readings are left out; without any reading there is a reason, not a zero."""
    statistics = PowerStatistics()
    for power_mw in powers_mw:
        statistics.add(Reading(at_ns=0, power_mw=power_mw))
    known = np.array([power_mw / 1000 for power_mw in powers_mw if power_mw is not None])
    result = statistics.result("gpu")
    assert result.samples == len(known)
    if len(known) == 0:
        assert result.mean_power_w is None and result.reason
        return
    assert result.mean_power_w == pytest.approx(known.mean())
    if len(known) > 1:
        assert result.std_power_w == pytest.approx(known.std(ddof=1), abs=1e-6)
