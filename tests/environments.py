"""Runs the fast tests with other packages or under another Python than `just test`, in environments of their own.

    python -m tests.environments newest     the newest version of every package that pyproject.toml permits
    python -m tests.environments lowest     the lowest version of what it names, the newest of what these need
    python -m tests.environments pythons    the locked versions under every other supported Python at hand, without torch

What only the tests need stays at constraints.txt. uv resolves and installs; an environment is kept in the user's cache folder until
its packages change. Where a test fails, the packages that differ from the lock are named. Further arguments go to pytest.
"""

import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "constraints.txt"
UV = Path(sys.executable).with_name("uv")
# an index may be slow: uv gives up after half a minute without a byte
PATIENT = {"UV_HTTP_TIMEOUT": "300", "UV_HTTP_RETRIES": "5"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FAST = "not slow and not locked"
RESOLUTIONS = {"newest": "highest", "lowest": "lowest-direct"}

# The version of each package, by its canonical name.
Versions = dict[str, str]


class Interpreter(NamedTuple):
    """A Python: its program, and its version as in 3.12."""

    program: Path
    python: str


class PackageSet(NamedTuple):
    """What an environment holds: a name for people, the extras of llem, and the version of everything."""

    name: str
    extras: tuple[str, ...]
    versions: Versions


def project() -> dict[str, Any]:
    """The project's table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(*extras: str) -> list[str]:
    """What llem and some of its extras need, as pyproject.toml writes it."""
    table = project()
    return [
        *table["dependencies"],
        *(line for extra in extras for line in table["optional-dependencies"][extra]),
    ]


def locked(python: str) -> Versions:
    """What constraints.txt says for one Python on Linux: its first release, or the one that runs here."""
    here = platform.python_version()
    full = here if here.startswith(f"{python}.") else f"{python}.0"
    environment = {"python_version": python, "python_full_version": full, "sys_platform": "linux"}
    pins = map(Requirement, LOCK.read_text(encoding="utf-8").splitlines())
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


def resolved(resolution: str, python: str) -> Versions:
    """What uv chooses for llem with every extra that a user can ask for."""
    command = [
        *(UV, "pip", "compile", "-q", "--no-header", "--no-annotate"),
        *("--resolution", resolution, "--python-version", python),
        *("--extra", "torch", "--extra", "zeus", "pyproject.toml"),
    ]
    lines = subprocess.run(
        command, cwd=ROOT, env={**PATIENT, **os.environ}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    return dict(line.split("==") for line in lines)


def package_set(name: str, python: str) -> PackageSet:
    """The set called `newest` or `lowest` for one Python, with everything else as in the lock."""
    versions = {**locked(python), **resolved(RESOLUTIONS[name], python)}
    return PackageSet(name, ("torch", "zeus", "test"), versions)


def differences(versions: Versions, python: str) -> dict[str, tuple[str, str]]:
    """Package -> its version and the lock's, where these differ."""
    lock = locked(python)
    return {
        name: (version, lock.get(name, "none"))
        for name, version in sorted(versions.items())
        if version != lock.get(name)
    }


def cache_folder() -> Path:
    """Where environments are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llem" / "environments"


@contextmanager
def environment(packages: PackageSet, interpreter: Interpreter) -> Iterator[Path]:
    """The Python of an environment that holds a set and this checkout, used by nobody else meanwhile."""
    lines = sorted(f"{name}=={version}\n" for name, version in packages.versions.items())
    wanted = requirements(*packages.extras)
    digest = hashlib.sha256("".join([*lines, *wanted]).encode()).hexdigest()[:12]
    kind = f"{packages.name}-{interpreter.python}"
    folder = cache_folder() / f"{kind}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        constraints = folder / "constraints.txt"
        if not constraints.exists():
            _remove_older(folder, kind)
            _install(folder, interpreter, wanted, lines)
            constraints.write_text("".join(lines), encoding="utf-8")
        python = folder / "bin" / "python"
        _pip(python, "--no-deps", "--no-build-isolation", "-e", ROOT)
        yield python


def _remove_older(folder: Path, kind: str) -> None:
    for older in folder.parent.glob(f"{kind}-*"):
        shutil.rmtree(older)


def _install(folder: Path, interpreter: Interpreter, wanted: Sequence[str], lines: Sequence[str]) -> None:
    print(f"making {folder}", flush=True)
    subprocess.run([interpreter.program, "-m", "venv", folder], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.writelines(lines)
        constraints.flush()
        uv_install(folder / "bin" / "python", "-c", constraints.name, *wanted)


def uv_install(python: Path, *arguments: object) -> None:
    """Into the environment of a Python, by uv: pip takes minutes for what uv does in seconds. uv knows nothing of pip's folders of wheels."""
    links = [
        part for folder in os.environ.get("PIP_FIND_LINKS", "").split() for part in ("--find-links", folder)
    ]
    command = [UV, "pip", "install", "-q", "--python", python, *links, *arguments]
    subprocess.run(list(map(str, command)), env={**PATIENT, **os.environ}, check=True)


def _pip(python: Path, *arguments: object) -> None:
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


def run_tests(python: Path, options: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit status, and its report of every test in JUnit's XML."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(python, "-m", "pytest", "-q", "-n", "3", "-p", "no:cacheprovider"),
            *("-m", FAST, f"--junitxml={report}", *options),
        ]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        return status, report.read_text(encoding="utf-8") if report.exists() else ""


def failures(report: str) -> dict[str, str]:
    """Failed test -> what pytest says of it."""
    if not report:
        return {}
    told = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        texts = [
            f"{node.get('message', '')}\n{node.text}" for node in case if node.tag in ("failure", "error")
        ]
        if texts:
            told[f"{case.get('classname')}::{case.get('name')}"] = "\n".join(texts)
    return told


def mentions(told: dict[str, str]) -> Counter[str]:
    """How many failed tests name the files of each installed top-level module in a traceback."""
    return Counter(
        module for text in told.values() for module in set(re.findall(r"site-packages[/\\](\w+)", text))
    )


def explain(title: str, told: dict[str, str], differing: dict[str, tuple[str, str]]) -> str:
    """Which tests failed, and which packages differ from the lock: those in the tracebacks first."""
    seen = mentions(told)
    order = sorted(differing, key=lambda package: (-seen[package.replace("-", "_")], package))
    return "\n".join(
        [
            f"{title}: {len(told)} tests failed",
            *(f"  {test}" for test in told),
            "packages that differ from constraints.txt:"
            if differing
            else "no package differs from constraints.txt",
            *(
                f"  {package} {differing[package][0]}, locked {differing[package][1]}"
                + (f", in the traceback of {count}" if (count := seen[package.replace("-", "_")]) else "")
                for package in order
            ),
        ]
    )


def check_set(packages: PackageSet, interpreter: Interpreter, options: Sequence[str]) -> int:
    """Run the tests under one set and one Python; the exit status is pytest's."""
    title = f"{packages.name} packages under Python {interpreter.python}"
    print(f"== {title}", flush=True)
    differing = differences(packages.versions, interpreter.python)
    with environment(packages, interpreter) as python:
        status, report = run_tests(python, options)
    if status:
        print(explain(title, failures(report), differing))
    return status


def check_resolution(name: str, options: Sequence[str]) -> int:
    """Run the tests under the newest or the lowest set, with this Python."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = package_set(name, python)
    for package, (version, lock) in differences(packages.versions, python).items():
        print(f"{name}: {package} {version}, locked {lock}")
    return check_set(packages, Interpreter(Path(sys.executable), python), options)


def other_interpreters() -> Iterator[Interpreter | str]:
    """Every supported Python but this one: its program, or only its version where it is not at hand."""
    for python in PYTHONS:
        if python != f"{sys.version_info.major}.{sys.version_info.minor}":
            program = find_python(python)
            yield Interpreter(program, python) if program else python


def find_python(python: str) -> Path | None:
    """A program of that version, on the path or among pyenv's, that runs and can make environments."""
    installed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for program in [
        f"python{python}",
        *sorted(map(str, installed.glob(f"{python}.*/bin/python3")), reverse=True),
    ]:
        question = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        try:
            answer = subprocess.run([program, "-c", question], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        if answer.stdout.strip() == python:
            return Path(program)
    return None


def check_pythons(options: Sequence[str]) -> int:
    """Run what needs no torch under every other Python at hand; 1 if a test failed under one of them."""
    statuses = []
    for interpreter in other_interpreters():
        if isinstance(interpreter, str):
            print(f"Python {interpreter} is not at hand: resolved in constraints.txt, not run")
            continue
        packages = PackageSet("locked", ("test",), locked(interpreter.python))
        statuses.append(check_set(packages, interpreter, ["-m", f"{FAST} and not torch", *options]))
    return int(any(statuses))


def main() -> None:
    """Do what the first argument says."""
    name, options = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in (*RESOLUTIONS, "pythons"):
        sys.exit(__doc__)
    try:
        sys.exit(check_pythons(options) if name == "pythons" else check_resolution(name, options))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{name}: not tested, because this failed: {shlex.join(map(str, error.cmd))}")


if __name__ == "__main__":
    main()
