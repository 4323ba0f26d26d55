"""Limits, waits and sizes were chosen or measured: none changes by chance, `--update-goldens` keeps what they are now."""

from pathlib import Path

import llem.projections
from tests.named_numbers import check_kept

KEPT = Path(__file__).with_name("named_numbers.json")


def test_a_number_that_has_a_name_stays_what_it_was(update: bool) -> None:
    """Of every module; git diff shows which was changed on purpose."""
    check_kept(llem.projections, KEPT, update=update)
