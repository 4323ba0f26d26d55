"""The command-line page of the documentation, made from the commands themselves: python -m llem.cli.reference."""

import importlib
import sys

import typer
from typer.testing import CliRunner

from llem.cli import COMMANDS, build_app

WIDTH = 100
HEAD = """# The command line

Made from `--help` by `just reference`; do not edit. Data goes to stdout, everything else to stderr; a pipe changes colour and width,
never the format. Exit status: 0 done, 1 measured but something failed (or is not valid, under `--strict`), 2 wrong input or not possible
here, 3 damaged data, 70 a fault of llem itself, 130 interrupted. `llem -vv COMMAND` adds tracebacks. `NO_COLOR`, `LLEM_DIR` (the store)
and `LLEM_LOG_LEVEL` are honoured. RUN is an id, a prefix of one, a name (of several experiments the newest), or `@last`.
"""


def reference() -> str:
    """The whole page."""
    sections = [HEAD, *(_section(command) for name in COMMANDS for command in _commands(name))]
    return "\n".join(sections)


def _commands(name: str) -> list[list[str]]:
    """The command, and the commands below it."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    below = command.registered_commands if isinstance(command, typer.Typer) else []
    names = [each.name or each.callback.__name__.replace("_", "-") for each in below if each.callback]
    return [[name], *([name, each] for each in names)]


def _section(command: list[str]) -> str:
    shown = CliRunner().invoke(
        build_app(command[0]), [*command, "--help"], prog_name="llem", terminal_width=WIDTH, color=False
    )
    lines = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
    return f"## llem {' '.join(command)}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
