"""The session in README.md is one that llem really shows: `pytest tests/test_readme.py --update-goldens` shows it anew."""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.terminal import on_a_terminal

README = Path(__file__).parents[1] / "README.md"
PROMPT = "$ .venv/bin/llem "
SIZE = (120, 40)
# What depends on the machine.
LEFT_OUT = ("  ", "verdict", "warning", "llem: meter", "─")


@pytest.mark.slow
@pytest.mark.torch
def test_the_session_is_real(tmp_path: Path, update: bool) -> None:
    """Each command shows the figures, columns and notes that stand below it; their numbers and sources are a machine's own."""
    written = _session()
    shown = "\n\n".join(_run(command, tmp_path) for command in _commands(written))
    if update:
        README.write_text(README.read_text(encoding="utf-8").replace(written, shown), encoding="utf-8")
        return
    assert _shape(shown) == _shape(written)


def _session() -> str:
    block = re.search(r"```console\n(.*?)\n```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return block[1]


def _commands(session: str) -> list[str]:
    return [line.removeprefix(PROMPT) for line in session.splitlines() if line.startswith(PROMPT)]


def _run(command: str, folder: Path) -> str:
    usual = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment = {**usual, "TERM": "xterm-256color", "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
    terminal, status = on_a_terminal(shlex.split(command), size=SIZE, environment=environment, folder=folder)
    assert status == 0, terminal.lines()
    return "\n".join([PROMPT + command, *terminal.lines()])


def _shape(session: str) -> list[str]:
    """Commands, names of figures and of columns; verdicts, warnings and rows of data are left out."""
    lines = [line for line in session.splitlines() if line and not line.startswith(LEFT_OUT)]
    cells = [re.split(r" {2,}", line) for line in lines]
    kept = [row if row[0] in ("figure", "run", "experiment_id") else row[:1] for row in cells]
    return [re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", "  ".join(row)) for row in kept]
