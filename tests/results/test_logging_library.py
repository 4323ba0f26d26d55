"""Standard logging only: no module asks for loguru."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def importing(library: str, folder: str) -> list[Path]:
    """Files below the folder that import the library, at any depth of their code."""
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    texts = {path: path.read_text() for path in files}
    return [
        path for path, text in texts.items() if library in text and library in modules_of(ast.parse(text))
    ]


def modules_of(module: ast.Module) -> set[str]:
    """Top-level modules that it imports."""
    return {name.split(".")[0] for node in ast.walk(module) for name in names_of(node)}


def names_of(node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_no_loguru_import() -> None:
    """Neither package imports loguru."""
    assert importing("loguru", "llem") == importing("loguru", "events") == []


def test_csv_exporter_no_loguru() -> None:
    """The exporters do not import loguru."""
    assert importing("loguru", "llem/export") == []


def test_an_import_would_be_found() -> None:
    """Also one within a function."""
    assert "loguru" in modules_of(ast.parse("def log():\n    from loguru.x import y"))
