"""What reading GPUs costs the sampler: CPU time of the NVML meter's readings against one NVML call per column.

Both read the same devices at the same rate for the same time, in turn; the ratio is theirs over ours. Under the simulated
NVML, the default, a call costs next to nothing, so that the figure is that of Python alone and fewer calls save little; with
--real it holds the driver's own time too. The calls a second are printed for both.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import pynvml

from llem.meters.nvml import NvmlMeter, resolve_gpus
from tests.simulated_nvml.build import in_this_process
from tests.simulated_nvml.scenario import hosts_gpus


def naive_reader(uuids: list[str]) -> Callable[[], object]:
    """Every column of every device by its own call, every time."""
    handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]

    def read() -> object:
        return [
            (
                pynvml.nvmlDeviceGetPowerUsage(handle),
                pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_AVERAGE]),
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle),
                pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
                pynvml.nvmlDeviceGetUtilizationRates(handle),
                pynvml.nvmlDeviceGetMemoryInfo(handle).used,
                pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
                pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
                pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
                pynvml.nvmlDeviceGetEnforcedPowerLimit(handle),
            )
            for handle in handles
        ]

    return read


def cpu_share(read: Callable[[], object], *, hz: float, seconds: float) -> float:
    """Share of one core that reading at a steady rate takes, the waiting included."""
    started_s = due_s = time.monotonic()
    cpu_s = time.process_time()
    while due_s < started_s + seconds:
        read()
        due_s += 1 / hz
        time.sleep(max(0.0, due_s - time.monotonic()))
    return (time.process_time() - cpu_s) / (time.monotonic() - started_s)


def _calls(read: Callable[[], object], *, hz: float = 20.0, seconds: float = 2.0) -> float:
    """NVML calls a second, of all devices."""
    before = in_this_process().calls()
    cpu_share(read, hz=hz, seconds=seconds)
    return (in_this_process().calls() - before) / seconds


def main() -> None:
    """Run both in turn and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", action="store_true", help="the machine's own GPUs")
    options = parser.parse_args()
    if not options.real:
        in_this_process().install(hosts_gpus(options.gpus), simulated_time=False)
    devices = resolve_gpus(None)
    meter, naive = NvmlMeter(devices), naive_reader([device.uuid for device in devices])
    ours, peer = [], []
    for number in range(options.rounds):
        ours.append(cpu_share(meter.read, hz=options.hz, seconds=options.seconds) / len(devices))
        peer.append(cpu_share(naive, hz=options.hz, seconds=options.seconds) / len(devices))
        print(
            f"round {number}: {ours[-1]:.3%} of a core per GPU, call by call {peer[-1]:.3%}", file=sys.stderr
        )
    mine, theirs = statistics.median(ours), statistics.median(peer)
    figures = {
        "ours": mine,
        "peer": theirs,
        "ratio": theirs / mine,
        "unit": "cores per GPU",
        "n": options.rounds,
    }
    calls = {} if options.real else {"our_calls": _calls(meter.read), "peer_calls": _calls(naive)}
    meter.close()
    print(json.dumps({"benchmark": "meter", **figures, "gpus": len(devices), "hz": options.hz, **calls}))


if __name__ == "__main__":
    main()
