"""The limits, waits and sizes of a package: every number, and every few of them, that a module gives a name."""

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def check_kept(package: ModuleType, kept: Path, *, update: bool) -> None:
    """Those that were kept are what they were; others may have come or gone."""
    found = named_numbers(package)
    if update:
        kept.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    before = {name: value for name, value in json.loads(kept.read_text()).items() if name in found}
    assert before and {name: found[name] for name in before} == before


def named_numbers(package: ModuleType) -> dict[str, Any]:
    """Module and name -> number, list or mapping of numbers, as JSON has them."""
    found = {}
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(each.name)
        for name in _assigned(Path(module.__file__ or "").read_text()):
            if _is_numeric(value := getattr(module, name)):
                found[f"{each.name}.{name}"] = value
    numbers: dict[str, Any] = json.loads(json.dumps(found))
    return numbers


def _assigned(source: str) -> Iterator[str]:
    """Names in capitals that are assigned outside of functions and classes."""
    for node in ast.parse(source).body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and part.id.isupper():
                    yield part.id


def _is_numeric(value: object) -> bool:
    match value:
        case bool():
            return False
        case int() | float():
            return True
        case tuple() | list():
            return bool(value) and all(map(_is_numeric, value))
        case dict():
            return bool(value) and all(
                isinstance(key, str) and _is_numeric(part) for key, part in value.items()
            )
    return False
