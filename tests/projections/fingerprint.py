"""Fingerprint of the derivation of results from tables: `python -m tests.projections.fingerprint` records it for RESULTS_VERSION."""

import hashlib
import json
import sys
from pathlib import Path

from llem.versions import RESULTS_VERSION
from tests.results.fingerprint import normalised

FOLDER = Path(__file__).parents[2] / "llem" / "projections" / "derive"
RECORDED = Path(__file__).with_name("derivation_version.json")


def fingerprint() -> str:
    """SHA-256 over the code of every module that makes a figure of events, samples or requests."""
    code = [f"{path.name}\n{normalised(path.read_text())}" for path in sorted(FOLDER.glob("*.py"))]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def recorded() -> dict[str, str]:
    """Version -> fingerprint of every version so far."""
    versions: dict[str, str] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return versions


def record(*, replace: bool) -> str:
    """Write the fingerprint of the current version; a recorded one is kept unless it was never released."""
    versions, version = recorded(), str(RESULTS_VERSION)
    if version in versions and versions[version] != fingerprint() and not replace:
        return f"version {version} is recorded with other code: bump RESULTS_VERSION, or --unreleased replaces it"
    RECORDED.write_text(json.dumps(versions | {version: fingerprint()}, indent=2) + "\n")
    return f"recorded version {version}"


if __name__ == "__main__":
    print(record(replace="--unreleased" in sys.argv))
