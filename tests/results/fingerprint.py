"""Fingerprint of the formulas behind results: `python -m tests.results.fingerprint` records it for RESULTS_VERSION."""

import ast
import hashlib
import json
import sys
from pathlib import Path

from llem.results import RESULTS_VERSION

FOLDER = Path(__file__).parents[2] / "llem" / "results"
RECORDED = Path(__file__).with_name("results_version.json")
# The list of figures is part of the tables' version as it is.
NO_FORMULAS = ("__init__.py", "figures.py")


def fingerprint() -> str:
    """SHA-256 over the code of every module with a formula, whatever its comments, docstrings and layout."""
    modules = sorted(path for path in FOLDER.glob("*.py") if path.name not in NO_FORMULAS)
    code = [f"{path.name}\n{normalised(path.read_text())}" for path in modules]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def normalised(source: str) -> str:
    """The code without docstrings and comments, in a form that every Python writes alike."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return shape(tree)


def shape(node: object) -> str:
    """A syntax tree as text. Fields that are empty are left out, because newer Pythons have more of them."""
    if isinstance(node, list):
        return f"[{','.join(map(shape, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={shape(child)}" for name, child in ast.iter_fields(node) if child not in (None, [])]
    return f"{type(node).__name__}({','.join(fields)})"


def recorded() -> dict[str, str]:
    """Version -> fingerprint of every version so far."""
    versions: dict[str, str] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return versions


def record(*, replace: bool) -> str:
    """Write the fingerprint of the current version; a recorded one is kept unless it was never released."""
    versions = recorded()
    version = str(RESULTS_VERSION)
    if version in versions and versions[version] != fingerprint() and not replace:
        return f"version {version} is recorded with other formulas: bump RESULTS_VERSION, or --unreleased replaces it"
    RECORDED.write_text(json.dumps(versions | {version: fingerprint()}, indent=2) + "\n")
    return f"recorded version {version}"


if __name__ == "__main__":
    print(record(replace="--unreleased" in sys.argv))
