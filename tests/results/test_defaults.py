"""What nobody says of a result is unknown."""

import importlib
import pkgutil

import msgspec
import pytest

import llem.results

SAID = {
    "schema_version": "2.0",
    "backend": "unknown",
    "kind": "gpu",
    "status": "completed",
    "measurement_methodology": "total",
    "method": "sum_energy_avg_throughput",
    "streaming_mode": True,
    "measurement_mode": "true_streaming",
    "verdict": "unclear",
}


def records() -> list[type[msgspec.Struct]]:
    """Every record that a module of results defines."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(llem.results.__path__, "llem.results.")
    ]
    return [
        defined
        for module in modules
        for defined in vars(module).values()
        if isinstance(defined, type) and issubclass(defined, msgspec.Struct)
        if defined.__module__ == module.__name__
    ]


@pytest.mark.parametrize("record", records(), ids=lambda record: record.__name__)
def test_a_field_that_is_not_given_is_unknown(record: type[msgspec.Struct]) -> None:
    """None, nothing or zero, or one of the few words that are said of every result."""
    for field in msgspec.structs.fields(record):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if default is msgspec.NODEFAULT or isinstance(default, msgspec.Struct) or not default:
            continue
        assert default == SAID.get(field.name), field.name
