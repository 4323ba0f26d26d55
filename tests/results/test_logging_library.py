"""Standard logging only: no module asks for loguru."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(folder: str) -> Iterator[tuple[Path, str]]:
    """Every (file, top-level module) that a file below the folder imports, at any depth of its code."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
            for name in names_of(node):
                yield path, name.split(".")[0]


def names_of(node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_no_loguru_import() -> None:
    """Neither package imports loguru."""
    found = [*imported("llem"), *imported("events")]
    assert found
    assert [path for path, module in found if module == "loguru"] == []


def test_csv_exporter_no_loguru() -> None:
    """The exporters do not import loguru."""
    assert [path for path, module in imported("llem/export") if module == "loguru"] == []
