"""The command-line page is made from the commands."""

from pathlib import Path

import pytest

from llem.cli import COMMANDS
from llem.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.locked
def test_the_page_is_up_to_date() -> None:
    """docs/cli.md is what the commands say of themselves."""
    assert PAGE.read_text() == reference(), "run `just reference`"


def test_every_command_is_documented() -> None:
    """Every command has its section, with a sentence of help."""
    page = PAGE.read_text()
    for name, (_, help_line) in COMMANDS.items():
        assert f"## llem {name}\n" in page
        assert help_line in page
