"""Compiling the simulated NVML, loading it into this process or handing it to another."""

import atexit
import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import msgspec

from llem.meters.base import Clock
from tests.simulated_nvml.scenario import Scenario

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
START_NS = 1_000_000_000_000  # simulated time begins here: 0 would mean the real clock


def build(folder: Path) -> Path:
    """Compile the library into `folder`, under the name that programs look for; once."""
    library = folder / LIBRARY
    if not library.exists():
        command = [
            os.environ.get("CC", "cc"),
            "-O1",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{LIBRARY}",
            str(SOURCE),
            "-lm",
        ]
        unfinished = folder / f"{LIBRARY}.{os.getpid()}"
        subprocess.run([*command, "-o", str(unfinished)], check=True)
        unfinished.replace(library)
    return library


def has_compiler() -> bool:
    """Whether the library can be built here."""
    return shutil.which(os.environ.get("CC", "cc")) is not None


def environment(scenario: Scenario, folder: Path, *, epoch_ns: int | None = None) -> dict[str, str]:
    """This process's environment with the simulated GPUs in it, for a child; the scenario starts now."""
    library = build(folder)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".scenario", delete=False) as file:
        scenario = msgspec.structs.replace(scenario, settings=scenario.settings or f"{file.name}.settings")
        file.write(scenario.lines(epoch_ns=time.monotonic_ns() if epoch_ns is None else epoch_ns))
    paths = [str(library.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    hidden = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
    kept = {name: text for name, text in os.environ.items() if name not in hidden}
    return {**kept, "LD_LIBRARY_PATH": os.pathsep.join(paths), "SIMULATED_NVML_SCENARIO": file.name}


class Simulation:
    """The library in this process: pynvml finds it by its soname once it is loaded here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = ctypes.CDLL(str(build(folder)))
        self._library.sim_time_ns.restype = ctypes.c_longlong
        self._library.sim_calls.restype = ctypes.c_longlong
        self._library.sim_true_energy_j.restype = ctypes.c_double

    def install(self, scenario: Scenario, *, simulated_time: bool = True) -> None:
        """Make it the host's GPUs; its second 0 is now."""
        epoch_ns = START_NS if simulated_time else time.monotonic_ns()
        self.load(scenario, epoch_ns=epoch_ns)
        self._library.sim_set_time_ns(ctypes.c_longlong(START_NS if simulated_time else 0))

    def load(self, scenario: Scenario, *, epoch_ns: int) -> None:
        """Know the scenario as it began at `epoch_ns`, on the real clock."""
        path = self._folder / "in-process.scenario"
        path.write_text(scenario.lines(epoch_ns=epoch_ns))
        if line := self._library.sim_load(str(path).encode()):
            raise ValueError(f"line {line} of the scenario: {path.read_text().splitlines()[line - 1]}")

    @property
    def clock(self) -> Clock:
        """The library's time; in simulated time a sleep moves it on at once."""
        return Clock(self._library.sim_time_ns, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._library.sim_sleep_ns(ctypes.c_longlong(round(seconds * 1e9)))

    def true_energy_j(self, gpu: int, from_ns: int, until_ns: int) -> float:
        """Joules that a GPU really used between two times."""
        joules: float = self._library.sim_true_energy_j(
            gpu, ctypes.c_longlong(from_ns), ctypes.c_longlong(until_ns)
        )
        return joules

    def set_load(self, uuid: str, level: float) -> None:
        """Load a GPU that has `load_w` from now on, from 0.0, idle, to 1.0."""
        if self._library.sim_set_load(uuid.encode(), round(level * 1000)):
            raise ValueError(f"{uuid} cannot be loaded: no such GPU, or its load_w is not set")

    def calls(self) -> int:
        """How many NVML calls were made since the scenario was installed."""
        calls: int = self._library.sim_calls()
        return calls


@cache
def in_this_process() -> Simulation:
    """The one library of this process: pynvml keeps the first that it finds."""
    folder = tempfile.mkdtemp(prefix="simulated-nvml-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Simulation(Path(folder))


@contextmanager
def installed(scenario: Scenario) -> Iterator[Simulation]:
    """Simulated GPUs in simulated time for the length of a block, and afterwards none."""
    simulation = in_this_process()
    simulation.install(scenario)
    try:
        yield simulation
    finally:
        simulation.install(Scenario(gpus=[], driver_absent=True))
