"""The notebook in docs is one that llem really fills: `pytest tests/test_notebook_page.py --update-goldens` fills it anew."""

import ast
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
Cell = dict[str, Any]


@pytest.mark.slow
def test_the_notebook_is_real(tmp_path: Path, update: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell runs after the one before, and shows tables of the columns that stand below it; their numbers are a machine's own."""
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.delenv("LLEM_DIR", raising=False)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    written = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(written, 1):
        outputs = _run("".join(cell["source"]), names, number)
        if update:
            cell |= {"execution_count": number, "outputs": outputs}
        else:
            assert _shape(outputs) == _shape(cell["outputs"]), f"cell {number}"
    if update:
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _run(source: str, names: dict[str, Any], number: int) -> list[Cell]:
    """What a cell prints, and the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "notebook", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "notebook", "eval"), names) if last else None
    outputs: list[Cell] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            shown["text/html"] = value._repr_html_().splitlines(keepends=True)
        outputs.append(
            {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": shown}
        )
    return outputs


def _shape(outputs: list[Cell]) -> list[tuple[str, list[str]]]:
    """Kinds of outputs, and the heads of their tables."""
    shape = []
    for output in outputs:
        drawn = "".join(output.get("data", {}).get("text/html", []))
        shape.append((output["output_type"], re.findall("<th>(.*?)</th>", drawn)))
    return shape
