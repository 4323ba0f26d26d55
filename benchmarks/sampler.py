"""What watching eight GPUs costs: one sampler at 20 Hz, its deadlines, its CPU time, and what it takes from the program.

A busy loop runs as a wrapped program under `llem measure` on simulated GPUs: for a minute undisturbed, which gives the deadlines and
the CPU time, its start included; then in turns with the bare loop (see benchmarks.turns), which gives the ratio of their
speeds. Under the simulated NVML a call costs next to nothing, so with --real the driver's own time comes on top.

    python -m benchmarks.sampler [--gpus 8] [--hz 20] [--seconds 60] [--rounds 6] [--pairs 25] [--real]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.turns import Program, Rates, figures, printed_steps, take_turns
from llem_events import SegmentReader, unpack
from llem_events.events import SamplingCompleted, WindowClosed, WindowOpened
from tests.simulated_nvml.build import environment
from tests.simulated_nvml.scenario import hosts_gpus

LLEM = "import llem.cli; llem.cli.main()"
LONG_S = 86_400.0  # until it is killed
BUSY = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for _ in range(1000):
        sum(range(1000))
    print(time.monotonic_ns(), 1000, flush=True)
"""


class Watched(NamedTuple):
    """What a sampler says of itself, and for how long it watched."""

    sampling: SamplingCompleted
    window_s: float

    def missed_share(self, gpus: int) -> float:
        """Deadlines missed over all deadlines."""
        kept = self.sampling.samples // gpus
        return self.sampling.deadlines_missed / (kept + self.sampling.deadlines_missed)

    @property
    def cpu_share(self) -> float:
        """The sampler's CPU time over the time that it watched."""
        return (self.sampling.cpu_time_ns or 0) / 1e9 / self.window_s


def measuring(store: Path, *, hz: float, seconds: float) -> list[str]:
    """The command that measures the busy loop."""
    return [
        *(sys.executable, "-c", LLEM, "measure", "--meter", "nvml", "--sample-hz", str(hz)),
        *("--set", "windows.baseline_s=0", "--set", "windows.baseline_after_s=0"),
        *("--store", str(store), "--", sys.executable, "-c", BUSY, str(seconds)),
    ]


def watch(surroundings: dict[str, str], *, hz: float, seconds: float) -> Watched:
    """One undisturbed measurement."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        done = subprocess.run(
            measuring(store, hz=hz, seconds=seconds),
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return Watched(*_sampling(store))


@contextmanager
def programs(surroundings: dict[str, str], folder: Path, *, hz: float) -> Iterator[tuple[Program, Program]]:
    """The loop that is measured and the bare one, both printing into files; killed on leaving."""
    bare = [sys.executable, "-c", BUSY, str(LONG_S)]
    commands = {"measured": measuring(folder / "store", hz=hz, seconds=LONG_S), "bare": bare}
    started = []
    for name, command in commands.items():
        with (folder / name).open("wb") as out:
            started.append(subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=surroundings))
    try:
        yield started[0], started[1]
    finally:
        for program in started:
            program.kill()
            program.wait()


def compare(surroundings: dict[str, str], *, hz: float, pairs: int) -> list[Rates]:
    """The loop's speed with and without the sampler, in neighbouring turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with programs(surroundings, folder, hz=hz) as both:
            return take_turns(
                both,
                lambda: (printed_steps(folder / "measured"), printed_steps(folder / "bare")),
                pairs=pairs,
            )


def _sampling(store: Path) -> tuple[SamplingCompleted, float]:
    """The sampler's account of itself, and the length of the measurement window in seconds."""
    opened_ns = closed_ns = 0
    account = None
    for path in store.glob("log/*/*.events.zst"):
        with SegmentReader(path) as reader:
            for envelope in (envelope for block in reader.blocks() for envelope in reader.events(block)):
                match unpack(envelope):
                    case WindowOpened(kind="measurement"):
                        opened_ns = envelope.at_ns
                    case WindowClosed(kind="measurement"):
                        closed_ns = envelope.at_ns
                    case SamplingCompleted() as account:
                        pass
    assert account is not None, "the sampler did not end in order"
    return account, (closed_ns - opened_ns) / 1e9


def main() -> None:
    """Watch undisturbed, then in turns; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the undisturbed measurement")
    parser.add_argument("--rounds", type=int, default=6, help="starts of both programs")
    parser.add_argument("--pairs", type=int, default=25, help="turns of each in a round")
    parser.add_argument("--real", action="store_true", help="the machine's own GPUs, --gpus of them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as driver:
        surroundings = (
            dict(os.environ) if options.real else environment(hosts_gpus(options.gpus), Path(driver))
        )
        watched = watch(surroundings, hz=options.hz, seconds=options.seconds)
        missed = watched.missed_share(options.gpus)
        print(f"{missed:.2%} of the deadlines missed, {watched.cpu_share:.1%} of a core", file=sys.stderr)
        rounds = [compare(surroundings, hz=options.hz, pairs=options.pairs) for _ in range(options.rounds)]
    cost = {
        "deadlines_missed": missed,
        "cores": watched.cpu_share,
        "jitter_p99_ms": (watched.sampling.jitter_p99_ns or 0) / 1e6,
        "gpus": options.gpus,
        "hz": options.hz,
    }
    print(json.dumps({"benchmark": "sampler", **figures(rounds), "unit": "rounds/s", **cost}))


if __name__ == "__main__":
    main()
