"""llem after an upgrade: a copy of both packages in which some lines are others, run as a program of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
START = "from llem.cli import main; main()"


class Change(NamedTuple):
    """A text of a file that becomes another."""

    file: str
    old: str
    new: str


class ChangedLlem:
    """The program with changes; `folder` is its own."""

    def __init__(self, folder: Path, changes: Sequence[Change]) -> None:
        # With what is compiled already: a changed file has another time and is compiled again.
        shutil.copytree(ROOT / "llem", folder / "llem")
        shutil.copytree(ROOT / "events" / "llem_events", folder / "llem_events")
        for change in changes:
            path = folder / change.file
            assert path.read_text().count(change.old) == 1, change
            path.write_text(path.read_text().replace(change.old, change.new))
        self._folder = folder

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Run it beside this program."""
        return subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(self._folder), "COLUMNS": "200", "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments)
        out, error = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)
