"""The wheel and the sdist hold everything, and work where nothing but the core dependencies is installed, under every Python at hand."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK, SIMULATED
from tests.environments import PYTHONS, ROOT, find_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]  # environments are installed, from an index that may be slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, built from the sources as they are, and the wheel, built from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    return next(built.glob("*.tar.gz"))


@pytest.fixture(scope="module", params=PYTHONS)
def laptop(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and its core dependencies only, under each Python at hand."""
    program = find_python(request.param)
    if program is None:
        pytest.skip(f"Python {request.param} is not at hand")
    folder = tmp_path_factory.mktemp("laptop")
    subprocess.run([program, "-m", "venv", folder], check=True)
    install(folder / "bin", wheel)
    return folder / "bin"


def install(laptop: Path, *arguments: object) -> None:
    """Install with the versions that constraints.txt has, those of the build too."""
    lock = str(ROOT / "constraints.txt")
    patient = {"PIP_DEFAULT_TIMEOUT": "60"}
    environment = {**patient, **os.environ, "PIP_CONSTRAINT": lock, "PIP_BUILD_CONSTRAINT": lock}
    command = [laptop / "python", "-m", "pip", "install", "-q", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment)


def start(store: Path, *command: object) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(store.parent), "LLEM_DIR": str(store)}
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)


def run(laptop: Path, store: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return start(store, laptop / "llem", *arguments)


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


def test_the_module_is_the_program(laptop: Path, tmp_path: Path) -> None:
    """`python -m llem` does what `llem` does."""
    asked = start(tmp_path / "store", laptop / "python", "-m", "llem", "-V")
    assert asked.stdout == run(laptop, tmp_path / "store", "-V").stdout != ""


def test_the_sdist_can_be_installed(laptop: Path, sdist: Path, tmp_path: Path) -> None:
    """In the place of the wheel it brings the same files, a program that runs and no broken requirement."""
    listed = [
        laptop / "python",
        "-c",
        "import importlib.metadata as m; print(*sorted(map(str, m.files('llem'))))",
    ]
    of_the_wheel = start(tmp_path, *listed).stdout.split()
    install(laptop, "--force-reinstall", "--no-deps", sdist)
    assert start(tmp_path, *listed).stdout.split() == of_the_wheel
    assert start(tmp_path, laptop / "python", "-m", "pip", "check").returncode == 0
    measured = run(laptop, tmp_path / "store", "measure", *SIMULATED, *QUICK)
    assert measured.returncode == 0, measured.stderr


def test_the_sdist_holds_what_its_tests_need(sdist: Path) -> None:
    """Both packages, the tests, the benchmarks, the pages, the recipes and the lock."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    for needed in (
        *("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "justfile"),
        *("constraints.txt", "llem/cli/__init__.py", "events/llem_events/reader.py", "events/FORMAT.md"),
        *("docs/cli.md", "tests/conftest.py", "benchmarks/README.md"),
    ):
        assert needed in names
