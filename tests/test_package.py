"""The wheel holds everything, and works where nothing but its core dependencies is installed."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK, SIMULATED

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources as they are."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def laptop(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and its core dependencies only, as constraints.txt has them."""
    folder = tmp_path_factory.mktemp("laptop")
    venv.create(folder, with_pip=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin"


def run(laptop: Path, store: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(store.parent), "LLEM_DIR": str(store)}
    return subprocess.run(
        [laptop / "llem", *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_both_packages_and_their_data(wheel: Path) -> None:
    """Code of both packages, py.typed of both, the SQL schema, presets and saved queries; nothing else at the top."""
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "llem/py.typed",
        "llem_events/py.typed",
        "llem/projections/log.sql",
        "llem/projections/derived.sql",
        "llem/engines/presets/tiny-llama.json",
        "llem/reporting/zoom.js",
        "llem/reporting/uplot/uPlot.iife.min.js",
        "llem/reporting/uplot/LICENSE",
        "llem_events/reader.py",
    ):
        assert needed in names
    assert any(name.startswith("llem/queries/") and name.endswith(".sql") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"llem", "llem_events"}


def test_analysis_works_without_torch(laptop: Path, tmp_path: Path) -> None:
    """On a laptop without the torch extra every command but the transformers engine works."""
    store = tmp_path / "store"
    measured = run(laptop, store, "measure", *SIMULATED, *QUICK)
    assert measured.returncode == 0, measured.stderr
    for arguments in (
        ["runs"],
        ["show", "@last"],
        ["query", "SELECT 1"],
        ["export", tmp_path / "r.csv"],
        ["log", "verify", "@last"],
        ["rebuild"],
        ["doctor"],
    ):
        done = run(laptop, store, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def test_the_missing_extra_is_named(laptop: Path, tmp_path: Path) -> None:
    """The transformers engine says which install command is missing, and leaves nothing behind."""
    done = run(laptop, tmp_path / "store", "measure")
    assert done.returncode == 2
    assert "pip install 'llem[torch]'" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()
