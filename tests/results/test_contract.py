"""What the package shows to others, and what it leaves alone."""

import subprocess
import sys
from types import ModuleType

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
STRUCTS = [public for public in vars(llem.results).values() if isinstance(public, type(msgspec.Struct))]


def test_what_is_importable_is_what_is_listed() -> None:
    """`__all__` names everything public, and nothing else."""
    public = {
        name
        for name, value in vars(llem.results).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(llem.results.__all__)


def test_every_struct_of_the_contract_is_there() -> None:
    """The names that users of schema 2.0 know."""
    assert set(CONTRACT) <= set(llem.results.__all__)
    assert issubclass(llem.results.AggregationError, Exception)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_results_are_frozen(struct: type[msgspec.Struct]) -> None:
    """No result changes after it was made."""
    assert struct.__struct_config__.frozen


def test_importing_results_loads_nothing_heavy() -> None:
    """A fresh interpreter that imports results has no database, model runtime, GPU library or command line."""
    program = f"import sys, llem.results; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
