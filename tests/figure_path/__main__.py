"""Print the modules that carry total_energy_j from NVML's counter to the screen of `llem show`: python -m tests.figure_path

A run on a simulated GPU and then `llem show` are watched from outside: a module is on the way where one of its functions returns the
figure to another module, in any of its forms (the counter's edges, their difference, in mJ and J, as a number, in JSON, in msgpack, in a compressed block),
or hands it towards the channel between two processes, the file, the table or the screen. One that only looks at it, as the verdict does, is not.
"""

import contextlib
import pickle
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard

from tests.conftest import LLEM
from tests.measure.gpu_host import GpuHost, GpuRun, gpu
from tests.simulated_nvml.build import build
from tests.simulated_nvml.scenario import Scenario, constant

# So odd that no other number of the run is the energy by chance.
POWER_W = 691.377
# What these are handed, another process, the disk or a person gets.
ENDS = {
    "llem.measure.messages",
    "llem_events.files",
    "llem.projections.arrow_stream",
    "llem.cli.console",
}
_ZSTD = b"\x28\xb5\x2f\xfd"
Neighbours = dict[str, set[str]]


def modules() -> list[str]:
    """Those on the way, of a run in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="figure-path-") as name:
        folder = Path(name)
        build(folder)
        # The result of `measure` itself is not watched: its tables are made by `show`.
        run = GpuHost(folder, folder).measure(
            Scenario(gpus=[gpu(0, curve=constant(POWER_W))]),
            "--sample-hz",
            10,
            **_watched(folder / "measured"),
        )
        assert run.done.returncode == 0, run.done.stderr
        (run.store / "projections.duckdb").unlink()
        subprocess.run(
            [LLEM, "show"], env=run.environment | _watched(folder / "shown"), check=True, stdout=sys.stderr
        )
        figure = _Forms(run)
        returns, hands = _flows(folder, figure)
    carriers = {module for module in (*returns, *hands) if module in returns or _ends(module, hands)}
    return sorted(carriers | (ENDS & set().union(*hands.values())))


def _watched(folder: Path) -> dict[str, str]:
    folder.mkdir()
    return {"FIGURE_PATH": str(folder), "PYTHONPATH": str(Path(__file__).parent)}


class _Forms:
    """Every form in which the energy of the run's only device is kept on its way."""

    def __init__(self, run: GpuRun) -> None:
        (edges,) = run.windows()
        open_mj, close_mj = edges.opened["energy_mj"], edges.closed["energy_mj"]
        whole = [open_mj, close_mj, close_mj - open_mj]
        self._numbers = {number for energy_mj in whole for number in (energy_mj, energy_mj / 1000)}
        self._texts = [
            *(struct.pack(">Q", energy_mj) for energy_mj in whole[:2]),
            *(struct.pack(">I", energy_mj) for energy_mj in whole[:2] if energy_mj < 2**32),
            *(str(energy_mj).encode() for energy_mj in whole[:2]),
            *(repr(energy_mj / 1000).encode() for energy_mj in whole),
            f"{whole[2] / 1000:,.6g}".encode(),
        ]

    def are_in(self, things: Iterable[Any]) -> bool:
        return any(map(self._is_in, things))

    def _is_in(self, thing: Any) -> bool:
        if isinstance(thing, int | float):
            return thing in self._numbers
        written = thing.encode(errors="replace") if isinstance(thing, str) else thing
        return any(text in piece for piece in (written, *_frames(written)) for text in self._texts)


def _frames(written: bytes) -> Iterable[bytes]:
    """What is compressed in it."""
    place = written.find(_ZSTD)
    while place >= 0:
        with contextlib.suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(written[place:])
        place = written.find(_ZSTD, place + 1)


def _flows(folder: Path, figure: _Forms) -> tuple[Neighbours, Neighbours]:
    """Module -> those that it returns the figure to, and those that it hands it to."""
    returns, hands = defaultdict(set), defaultdict(set)
    for path in [*_of_measuring(folder / "measured"), *(folder / "shown").iterdir()]:
        for (event, caller, called), things in pickle.loads(path.read_bytes()).items():
            if caller is not None and figure.are_in(things):
                if event == "return":
                    returns[called].add(caller)
                else:
                    hands[caller].add(called)
    return returns, hands


def _of_measuring(folder: Path) -> list[Path]:
    """What the worker and the sampler kept: the command beside them shows a result of its own."""
    kept = sorted(folder.iterdir())
    return [
        path for path in kept if not any(key[2] == "llem.cli.show" for key in pickle.loads(path.read_bytes()))
    ]


def _ends(module: str, hands: Neighbours, seen: frozenset[str] = frozenset()) -> bool:
    further = hands.get(module, set()) - seen
    return bool(further & ENDS) or any(_ends(name, hands, seen | {module}) for name in further)


if __name__ == "__main__":
    found = modules()
    print(*found, f"{len(found)} modules", sep="\n")
