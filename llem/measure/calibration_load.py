"""The load of a calibration, as a program of its own: all GPUs at once, on and off as planned, each time a region.

python -m llem.measure.calibration_load torch SECONDS [UUID ...]
"""

import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from llem.errors import MeasureError
from llem.instrumentation import region
from llem.results.calibration import REGION, LoadStep, load_schedule

MODULE = "llem.measure.calibration_load"
GPU_BYTES, CPU_BYTES = 2**28, 2**24  # of an array: beyond any cache, and no more than a millisecond's work
WARMUP_S = 0.5
SIMULATED_DRIVER, FULL = "libnvidia-ml.so.1", 1000
Work = Callable[[float], None]  # is busy until a moment of the monotonic clock, in seconds


def torch_work(uuids: Sequence[str]) -> Work:
    """Sums of arrays on all GPUs that are visible, or on the CPU: what moves memory stays below the power limit, which matrix products reach.

    Libraries that load on first use are loaded when it returns.
    """
    import torch  # noqa: PLC0415 -- the simulated load goes without it

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    count = (GPU_BYTES if gpus else CPU_BYTES) // 4
    # Random operands draw more power than zeros do.
    terms = [torch.randn(count, device=name) for name in gpus or ["cpu"]]
    sums = [torch.empty_like(term) for term in terms]

    def work(until_s: float) -> None:
        while time.monotonic() < until_s:
            for term, found in zip(terms, sums, strict=True):
                torch.add(term, term, out=found)
            for name in gpus:
                torch.cuda.synchronize(name)

    work(time.monotonic() + WARMUP_S)
    return work


def simulated_driver() -> ctypes.CDLL:
    """The simulated NVML that is in the place of a real one. Raises MeasureError where there is none."""
    try:
        driver = ctypes.CDLL(SIMULATED_DRIVER)
    except OSError:
        driver = None
    if driver is None or not hasattr(driver, "sim_set_load"):
        raise MeasureError(
            "load simulated",
            found="no simulated driver",
            expected="one",
            hint="--load torch loads what is here",
        )
    return driver


def simulated_work(uuids: Sequence[str]) -> Work:
    """Nothing but calls of a simulated driver, which has these GPUs draw more."""
    driver = simulated_driver()

    def load(level: int) -> None:
        for uuid in uuids:
            if driver.sim_set_load(uuid.encode(), level):
                raise MeasureError(
                    f"the simulated driver cannot load {uuid}",
                    found="a curve of its own, or no such GPU",
                    expected="a GPU with `load_w`",
                )

    def work(until_s: float) -> None:
        load(FULL)
        time.sleep(max(0.0, until_s - time.monotonic()))
        load(0)

    load(0)
    return work


LOADS: dict[str, Callable[[Sequence[str]], Work]] = {"torch": torch_work, "simulated": simulated_work}


def run(steps: Iterable[LoadStep], work: Work) -> None:
    """One after the other, each until it was due to end, so that no delay adds to the next."""
    due_s = time.monotonic()
    for step in steps:
        due_s += step.seconds
        if step.level > 0:
            with region(REGION):
                work(due_s)
        else:
            time.sleep(max(0.0, due_s - time.monotonic()))


def main(arguments: Sequence[str]) -> None:
    """The load's name, how long all of it takes, and which devices."""
    name, seconds, *uuids = arguments
    run(load_schedule(float(seconds)), LOADS[name](uuids))


if __name__ == "__main__":
    main(sys.argv[1:])
