"""A host with simulated GPUs on which the real `llem measure` runs, and the truth about every window of its log."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import LLEM, bare_events, events_of, segments
from tests.simulated_nvml.build import environment, in_this_process
from tests.simulated_nvml.scenario import Gpu, Scenario, square, uuid_of

BASELINE_S, BASELINE_AFTER_S, WINDOW_S = 0.2, 0.1, 1.5
# a window of a minute on a machine that takes a minute to open it
LIMIT_S = 300.0
WATCHED = (
    *("--meter", "nvml"),
    *("--set", f"workload.min_duration_s={WINDOW_S}"),
    *("--set", f"windows.baseline_s={BASELINE_S}"),
    *("--set", f"windows.baseline_after_s={BASELINE_AFTER_S}"),
    *("--set", "windows.cooldown_max_s=0"),
)
ON_GPUS = ("--engine", "simulated", *WATCHED)

# A server is asked no longer than needed.
BRIEF = (
    *(
        "--set",
        "workload.requests=4",
        "--set",
        "workload.output_tokens.mean=4",
        "--set",
        "windows.warmup_max_s=0.3",
    ),
    *("--set", "validity.max_client_lag_ms=10000", "--set", "validity.max_send_lag_ms=10000"),
)
# As the simulated server it is no server of GPUs, so it is started as any other.
OWN = (
    "--set",
    f'server.command=["{sys.executable}","-m","llem.servers.simulated_program","{{host}}","{{port}}","{{}}"]',
)


def gpu(index: int, **about: Any) -> Gpu:
    """A GPU whose power tells it from its neighbours, with a counter of 20 ms."""
    watts = 100.0 + 60.0 * index
    defaults = {
        "uuid": uuid_of(index),
        "pci": f"00000000:{0x18 + 8 * index:02X}:00.0",
        "curve": square(1.4 * watts, 0.6 * watts, period_s=0.37),
        "counter_tick_ms": 20.0,
    }
    return Gpu(**{**defaults, **about})


def gpus(count: int) -> Scenario:
    """So many GPUs, all different in power."""
    return Scenario(gpus=[gpu(index) for index in range(count)])


@dataclass(frozen=True)
class Edges:
    """One device in one window of one process, as the log has it."""

    process_index: int
    device_uuid: str
    opened: dict[str, Any]
    closed: dict[str, Any]

    @property
    def counted_j(self) -> float | None:
        """The counter's difference; None where either edge has no reading."""
        if self.opened.get("energy_mj") is None or self.closed.get("energy_mj") is None:
            return None
        return float(self.closed["energy_mj"] - self.opened["energy_mj"]) / 1000


@dataclass(frozen=True)
class GpuRun:
    """A finished run: what it said, its log and its tables."""

    scenario: Scenario
    epoch_ns: int
    store: Path
    environment: dict[str, str] = field(repr=False)
    done: subprocess.CompletedProcess[str]

    def windows(self, kind: str = "measurement") -> list[Edges]:
        """Every device of every window of one kind, by process."""
        return [edges for path in segments(self.store, "worker") for edges in _windows(path, kind)]

    def true_energy_j(self, device_uuid: str, from_ns: int, until_ns: int) -> float:
        """Joules that a GPU really used; a MIG instance's are its parent's."""
        in_this_process().load(self.scenario, epoch_ns=self.epoch_ns)
        try:
            return in_this_process().true_energy_j(self._index(device_uuid), from_ns, until_ns)
        finally:
            in_this_process().install(Scenario(gpus=[], driver_absent=True))

    def _index(self, device_uuid: str) -> int:
        named = [{one.uuid, *(mig.uuid for mig in one.migs or ())} for one in self.scenario.gpus]
        return next(index for index, uuids in enumerate(named) if device_uuid in uuids)

    def truth_of(self, edges: Edges) -> float:
        """The truth between the two edges of a device."""
        return self.true_energy_j(edges.device_uuid, edges.opened["at_ns"], edges.closed["at_ns"])

    def highest_w(self, device_uuid: str) -> float:
        """The most that a GPU ever draws."""
        return max(watts for _, watts in self.scenario.gpus[self._index(device_uuid)].curve)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows that `llem query` gives."""
        command = [LLEM, "query", "-f", "json", sql]
        asked = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
        rows: list[dict[str, Any]] = json.loads(asked.stdout)
        return rows

    def result(self) -> dict[str, Any]:
        """The whole ExperimentResult."""
        result = self.query("SELECT result FROM experiment_results")[0]["result"]
        decoded: dict[str, Any] = json.loads(result) if isinstance(result, str) else result
        return decoded

    def warnings(self) -> dict[str, str]:
        """Code -> text of every warning in the log."""
        found = [body for role in ("supervisor", "worker", "sampler") for body in self._raised(role)]
        return {body["code"]: body["text"] for body in found}

    def _raised(self, role: str) -> list[dict[str, Any]]:
        return events_of(self.store, role, "warning_raised")


def _windows(path: Path, kind: str) -> Iterator[Edges]:
    opened: dict[str, dict[str, Any]] = {}
    process_index = int(path.name.split("-")[1])
    for name, _, _, body in bare_events(path):
        if name == "window_opened" and body["kind"] == kind:
            opened = {edge["device_uuid"]: edge for edge in body.get("edges", [])}
        if name == "window_closed" and body["kind"] == kind:
            for edge in body.get("edges", []):
                yield Edges(process_index, edge["device_uuid"], opened[edge["device_uuid"]], edge)


class GpuHost:
    """Runs `llem measure` under scenarios, each run into a store of its own."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library, self._folder, self._runs = library, folder, 0

    def measure(self, scenario: Scenario, *arguments: object, **changes: str) -> GpuRun:
        """One whole run; the scenario's second 0 is its start."""
        return self.run("measure", scenario, *ON_GPUS, *arguments, **changes)

    def serve(self, scenario: Scenario, *arguments: object) -> GpuRun:
        """The same of a server."""
        return self.run("measure", scenario, *WATCHED, *arguments)

    def run(
        self,
        command: str,
        scenario: Scenario,
        *arguments: object,
        in_store_of: GpuRun | None = None,
        killed_after_s: float | None = None,
        **changes: str,
    ) -> GpuRun:
        """Any command of llem, into a store of its own or that of an earlier run; `killed_after_s` by SIGKILL."""
        self._runs += 1
        store = self._folder / f"store-{self._runs}" if in_store_of is None else in_store_of.store
        epoch_ns = time.monotonic_ns()
        surroundings = {
            **environment(scenario, self._library, epoch_ns=epoch_ns),
            "LLEM_DIR": str(store),
            "NO_COLOR": "1",
            "COLUMNS": "200",
            **changes,
        }
        words = [LLEM, command, *map(str, arguments)]
        try:
            done = subprocess.run(
                words,
                env=surroundings,
                capture_output=True,
                text=True,
                timeout=killed_after_s or LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            if killed_after_s is None:
                raise
            done = subprocess.CompletedProcess(words, -signal.SIGKILL, "", "")
        return GpuRun(scenario, epoch_ns, store, surroundings, done)
