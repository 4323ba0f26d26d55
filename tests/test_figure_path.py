"""How many files somebody opens who follows a figure."""

import pytest

from tests.figure_path.__main__ import modules
from tests.simulated_nvml.build import has_compiler

MOST = 40


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C compiler: the simulated NVML cannot be built")
def test_the_total_energy_goes_through_few_modules() -> None:
    """From the counter through the log and the tables to the screen; what only looks at it is not counted."""
    found = modules()
    assert {"llem.meters.nvml", "llem_events.writer", "llem.results.energy", "llem.cli.show"} <= set(found)
    assert not {"llem.results.validity", "llem.projections.derive.conservation"} & set(found)
    assert len(found) <= MOST, found
