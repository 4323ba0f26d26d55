"""What the package shows to others, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import llem.results

HEAVY = ("duckdb", "torch", "transformers", "pynvml", "typer", "rich", "click", "pandas", "pyarrow")
CONTRACT = [
    "Timestamps",
    "InferenceMetrics",
    "EnergyMetrics",
    "ComputeMetrics",
    "EnergyBreakdown",
    "ThermalThrottleInfo",
    "WarmupResult",
    "MultiGPUMetrics",
    "EnvironmentSnapshot",
    "LatencyMeasurements",
    "LatencyStatistics",
    "ExtendedEfficiencyMetrics",
    "RawProcessResult",
    "AggregationMetadata",
    "ExperimentResult",
    "CompletenessReport",
]
PUBLIC = [getattr(llem.results, name) for name in llem.results.__all__]
STRUCTS = [public for public in PUBLIC if isinstance(public, type(msgspec.Struct))]


def test_what_is_listed_is_importable() -> None:
    """`__all__` names what there is, and no module of the package hides one of its names."""
    assert None not in PUBLIC and dir(llem.results) == llem.results.__all__
    modules = {path.stem for path in Path(llem.results.__file__).parent.glob("*.py")}
    assert not modules & set(llem.results.__all__)


def test_every_struct_of_the_contract_is_there() -> None:
    """The names that users of schema 2.0 know."""
    assert set(CONTRACT) <= set(llem.results.__all__)
    assert issubclass(llem.results.AggregationError, Exception)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_results_are_frozen(struct: type[msgspec.Struct]) -> None:
    """No result changes after it was made."""
    assert struct.__struct_config__.frozen


def test_results_load_nothing_heavy() -> None:
    """A fresh interpreter that has imported all of results has no database, model runtime, GPU library or command line."""
    program = (
        f"import sys; from llem.results import *; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
