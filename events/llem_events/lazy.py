"""The root of a package whose names are imported when they are first used."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Root = tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]


def root_of(package: str, names: Mapping[str, str], *, loaded: Sequence[str] = ()) -> Root:
    """Its `__all__`, `__getattr__` and `__dir__`; `names` are, module by module, what each gives, `loaded` those that the root has already."""
    modules = {name: module for module, given in names.items() for name in given.split()}
    every = sorted([*loaded, *modules])

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, found)
        return found

    return every, get, lambda: list(every)
