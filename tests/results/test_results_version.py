"""A changed formula is a new version, so that stored results are derived again."""

from llem.results import RESULTS_VERSION
from tests.results.fingerprint import fingerprint, normalised, recorded


def test_changed_formulas_have_a_new_version() -> None:
    """The code of the formulas is the one recorded for RESULTS_VERSION."""
    advice = "formulas changed: bump RESULTS_VERSION and run `python -m tests.results.fingerprint`"
    assert recorded().get(str(RESULTS_VERSION)) == fingerprint(), advice


def test_the_fingerprint_sees_code_only() -> None:
    """Comments, docstrings and layout do not count; an operator does."""
    plain = 'def mean(a, b):\n    """Half."""\n    return (a + b) / 2  # of two\n'
    assert normalised(plain) == normalised("def mean(a,b): return (a+b)/2")
    assert normalised(plain) != normalised("def mean(a,b): return (a-b)/2")
