"""A folder like /sys/class/powercap whose counters rise in real time, for programs that are run from outside."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PACKAGE_W, DRAM_W = 80.0, 12.0
TICK_S = 0.005
_RANGE_UJ = 262_143_328_850
_ZONES = {"intel-rapl:0": ("package-0", PACKAGE_W), "intel-rapl:0:0": ("dram", DRAM_W)}


class TickingPowercap:
    """One package and its memory at constant powers; a counter is written in place, so that no reader finds it half written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._watts = {}
        for folder, (name, watts) in _ZONES.items():
            (root / folder).mkdir(parents=True)
            (root / folder / "name").write_text(f"{name}\n")
            (root / folder / "max_energy_range_uj").write_text(f"{_RANGE_UJ}\n")
            counter = os.open(root / folder / "energy_uj", os.O_CREAT | os.O_WRONLY)
            self._watts[counter] = watts
        self._write(0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def _write(self, elapsed_ns: int) -> None:
        for counter, watts in self._watts.items():
            os.pwrite(counter, b"%015d\n" % round(elapsed_ns / 1000 * watts), 0)

    def _tick(self) -> None:
        started_ns = time.monotonic_ns()
        while not self._done.wait(TICK_S):
            self._write(time.monotonic_ns() - started_ns)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        for counter in self._watts:
            os.close(counter)
