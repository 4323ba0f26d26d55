"""What all tests share: the real program run as a user runs it, and a reader of segments that is not ours."""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, settings

from llem.plan import Plan
from tests.forked import ForkedLlem

LLEM = Path(sys.executable).with_name("llem")
SIMULATED = ("--engine", "simulated", "--meter", "simulated")
QUICK = (
    *("--set", "workload.min_duration_s=0.6"),
    *("--set", "windows.baseline_s=0.2"),
    *("--set", "windows.baseline_after_s=0.1"),
)
# On a busy machine samples come late: where that is not what is tested, a verdict says nothing of it.
CALM = tuple(
    word
    for key, limit in (("max_energy_disagreement", "0.9"), ("max_sample_gap_s", "60"), ("min_samples", "1"))
    for word in ("--set", f"validity.{key}={limit}")
)
# Only against hanging: a machine that many share may stand still for a good while.
LIMIT_S = PATIENCE_S = 120
# On stderr where work takes longer than a second.
PROGRESS = ("llem: reading the log: ", "llem: deriving results: ", "llem: importing: ")
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2

# How long an example takes on a busy machine says nothing of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell ignores Ctrl-C in what it starts in the background, and so would every command that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Or every process that the tests start compiles all of our code again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Two threads for each of the tiny models, in as many processes as there are cores, would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Event = tuple[str, int, int, dict[str, Any]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that renews golden files."""
    parser.addoption(
        "--update-goldens", action="store_true", help="Write golden screens instead of comparing them."
    )


@pytest.fixture(scope="session")
def update(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be renewed."""
    return bool(request.config.getoption("--update-goldens"))


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """Builds a plan from sections given as mappings."""

    def build(**sections: Any) -> Plan:
        return msgspec.convert(sections, Plan)

    return build


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def environment(store: Path) -> dict[str, str]:
    """The environment of the program: this store, no colours, no hub."""
    return {**os.environ, "LLEM_DIR": str(store), "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def forked() -> Iterator[ForkedLlem]:
    """Runs commands without what their start costs."""
    program = ForkedLlem()
    yield program
    program.close()


@pytest.fixture
def llem(environment: dict[str, str], forked: ForkedLlem) -> Run:
    """Run llem to its end."""

    def run(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return quiet(forked.run(arguments, environment={**environment, **changes}))

    return run


@pytest.fixture
def whole_llem(environment: dict[str, str]) -> Run:
    """Run llem to its end in a process that starts with it."""

    def run(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [LLEM, *map(str, arguments)],
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return quiet(done)

    return run


@pytest.fixture
def start_llem(environment: dict[str, str]) -> Iterator[Start]:
    """Start llem in the background; what still runs at the test's end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, process_group: int | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [LLEM, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=process_group,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def needs(package: str) -> pytest.MarkDecorator:
    """A test that is skipped where a package is not installed, which is not loaded to find out: that takes seconds in every process of tests."""
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"no package {package}")


def read_as_anybody() -> None:
    """In a child before its program starts: a folder or file that its mode closes is closed, even where the tests run as root."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def wait_until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail when it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def command_line(pid: int) -> str:
    """The words of a process, separated by spaces; none of one that has ended, which those that are listed may have by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def without_progress(told: str) -> str:
    """What was said but for how far work was, which depends on the machine."""
    return "".join(line for line in told.splitlines(keepends=True) if not line.startswith(PROGRESS))


def quiet(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """A command that has ended, as on a machine on which no work takes longer than a second."""
    done.stderr = without_progress(done.stderr)
    return done


def mostly_slow(cases: Iterable[Any], *, every: int) -> list[Any]:
    """Parameters of a test of which each `every`-th runs with the fast tests, and the others with the slow ones."""
    return [
        case
        if number % every == 0
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for number, case in enumerate(cases)
    ]


def bare_events(segment: Path) -> list[Event]:
    """The events of a segment, read with nothing but zstandard and msgpack."""
    with zstandard.open(segment, "rb") as stream:
        return [tuple(event) for event in msgpack.Unpacker(stream, strict_map_key=False)]


def segments(store: Path, role: str = "") -> list[Path]:
    """Segment files of a store by role."""
    return sorted(store.glob(f"log/*/{role}*.events.zst"))


def events_of(store: Path, role: str, kind: str) -> list[dict[str, Any]]:
    """Bodies of all events of one type in the segments of one role."""
    return [body for path in segments(store, role) for name, _, _, body in bare_events(path) if name == kind]
