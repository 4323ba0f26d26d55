"""A changed derivation is a new version, so that stored results are derived again."""

from llem.versions import RESULTS_VERSION
from tests.projections.fingerprint import fingerprint, recorded


def test_a_changed_derivation_has_a_new_version() -> None:
    """The code is the one recorded for RESULTS_VERSION."""
    advice = "derivation changed: bump RESULTS_VERSION and run `python -m tests.projections.fingerprint`"
    assert recorded().get(str(RESULTS_VERSION)) == fingerprint(), advice
