"""A page in a browser without a screen and without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LIMIT_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
USUAL = ("--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")


def drawn(page: Path, profile: Path, *options: str, width: int) -> tuple[str, str]:
    """The document once it is drawn, and what the browser told."""
    done = subprocess.run(
        [
            *(str(CHROMIUM), *USUAL, f"--user-data-dir={profile}", f"--window-size={width},9000"),
            *(*options, page.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_S,
    )
    return done.stdout, done.stderr
