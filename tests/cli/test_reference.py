"""The command-line page is made from the commands."""

import re
from pathlib import Path

import pytest

from llem.cli import COMMANDS
from llem.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.locked
def test_the_page_is_up_to_date() -> None:
    """docs/cli.md is what the commands say of themselves."""
    assert PAGE.read_text() == reference(), "run `just reference`"


# commands that do the same to more or fewer runs -> options that all of them have
ALIKE = {
    ("measure", "study"): ["--max-time", "--dry-run", "--set", "--json", "--collect"],
    ("compare", "report"): ["--in", "--all", "--valid", "--margin", "--level", "--factors"],
    ("query", "shell"): ["--timeout", "--factors", "--sealed", "--cache-limit"],
    ("runs", "export"): ["--label", "--name", "--since"],
    ("show", "export"): ["--methodology", "--window"],
    ("show", "rebuild", "collect", "log cat"): ["--salvage"],
    ("runs", "studies", "show", "doctor", "collect", "seal", "log info", "log verify", "log digest"): [
        "--json"
    ],
}


@pytest.mark.parametrize("commands", ALIKE, ids=" ".join)
def test_commands_that_are_alike_have_the_same_options(commands: tuple[str, ...]) -> None:
    """What one can be asked, so can the others."""
    for command in commands:
        section = PAGE.read_text().partition(f"## llem {command}\n")[2].partition("\n#")[0]
        options = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", section, re.MULTILINE)
        assert set(ALIKE[commands]) <= set(options), command


def test_every_command_is_documented() -> None:
    """Every command has its section, with a sentence of help."""
    page = PAGE.read_text()
    for name, (_, help_line) in COMMANDS.items():
        assert f"## llem {name}\n" in page
        assert help_line in page
