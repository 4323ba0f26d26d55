"""What a measurement costs the model: tokens/s inside `llem measure` against the same model and batches in a bare loop.

Both programs are whole, with sampler, supervisor and log on our side, and both are there all the time. They take turns of half a second:
while one computes, every process of the other is stopped. So both meet the same machine, whatever else it does, and
a ratio comes from two neighbouring turns. A turn's rate is that of the batches which began and ended in it; the result is the median
of the turns' ratios. 1 means that measuring is free. The bare loop is the shortest that decodes and reads its tokens, as any loop must
that stops at an end-of-sequence. On a CPU both run the model on one thread (OMP_NUM_THREADS, unless it is set), which leaves the
second core of a small machine to whatever else runs on it.

    python -m benchmarks.harness [--model tiny-llama] [--pairs 200]
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llem.engines import EncodedPrompt, create_engine
from llem.engines.hf_load import choose_device, load_model
from llem.engines.prompts import batches, load_prompts
from llem.engines.sources import find_model
from llem.plan import Plan
from llem.plan_file import resolve_plan
from llem_events import SegmentReader, unpack
from llem_events.events import RequestsCompleted

TURN_S = 0.5
BATCHES_PER_TURN = 5
LONG_S = 86_400.0  # until it is told to stop
LLEM = "import llem.cli; llem.cli.main()"


class Batch(NamedTuple):
    """When a batch ended, and how many tokens it put out."""

    end_ns: int
    tokens: int


class Turn(NamedTuple):
    """When a program was free to run."""

    began_ns: int
    ended_ns: int

    def rate(self, ends: Sequence[Batch]) -> float | None:
        """Tokens per second over the batches that began and ended in it; None where there are fewer than two."""
        within = [batch for batch in ends if self.began_ns < batch.end_ns < self.ended_ns]
        if len(within) < 3:
            return None
        tokens = sum(batch.tokens for batch in within[1:])
        return tokens / (within[-1].end_ns - within[0].end_ns) * 1e9


def plan(model: str) -> Plan:
    """The default plan, without an end-of-sequence."""
    return resolve_plan(None, options={"model.name": model, "decoding.ignore_eos": True})


def bare_loop(what: Plan) -> None:
    """Decode the plan's batches for ever; print the end of each."""
    engine = create_engine(what, device=None)
    engine.load()
    prompts = engine.encode(load_prompts(what))
    engine.close()
    device = choose_device(None, planned=what.engine.device)
    model = load_model(find_model(what.model), what.model, device)
    work = list(batches(prompts, what.engine.batch_size))
    while True:
        for batch in work:
            ids = torch.tensor([prompt.token_ids for prompt in batch], device=device)
            tokens = generate(model, ids, batch)
            print(time.monotonic_ns(), tokens, flush=True)


@torch.inference_mode()
def generate(model: Any, ids: torch.Tensor, batch: list[EncodedPrompt]) -> int:
    """Greedy decoding of one batch of prompts of one length; returns the number of output tokens."""
    steps = batch[0].max_new_tokens
    output = model(ids, use_cache=True, logits_to_keep=1)
    found = []
    for step in range(steps):
        token = output.logits[:, -1].argmax(-1)
        found.append(token.tolist() if ids.device.type == "cpu" else token)
        if step < steps - 1:
            output = model(token[:, None], past_key_values=output.past_key_values, use_cache=True)
    if ids.device.type != "cpu":
        torch.stack(found).tolist()
    return steps * len(batch)


@contextmanager
def programs(model: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """The measurement and the bare loop, started; ended on leaving."""
    measuring = subprocess.Popen(
        [
            *(sys.executable, "-c", LLEM, "measure", "--model", model, "--store", str(folder / "store")),
            *("--set", "decoding.ignore_eos=true", "--set", f"workload.min_duration_s={LONG_S}"),
            *("--set", "windows.baseline_s=0", "--set", "windows.baseline_after_s=0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with (folder / "bare").open("wb") as out:
        bare = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness", "--bare", "--model", model], stdout=out
        )
    try:
        yield measuring, bare
        let_run(measuring)
        measuring.send_signal(signal.SIGINT)
        measuring.wait(60)
    finally:
        for process in (bare, measuring):
            process.kill()
            process.wait()


def family(pid: int) -> list[int]:
    """A process and all its descendants, the parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def let_run(program: subprocess.Popen[bytes]) -> None:
    """Continue every process of a program."""
    for pid in family(program.pid):
        os.kill(pid, signal.SIGCONT)


def stop(program: subprocess.Popen[bytes]) -> None:
    """Stop every process of a program where it stands."""
    for pid in family(program.pid):
        os.kill(pid, signal.SIGSTOP)


def take_turn(program: subprocess.Popen[bytes], seconds: float) -> Turn:
    """Let one program run, then stop it."""
    began_ns = time.monotonic_ns()
    let_run(program)
    time.sleep(seconds)
    ended_ns = time.monotonic_ns()
    stop(program)
    return Turn(began_ns, ended_ns)


def measured_batches(folder: Path) -> list[Batch]:
    """The batches in the measurement window, from the worker's segment as far as it is written."""
    ends: dict[int, Batch] = {}
    for path in folder.glob("store/log/*/worker-*.events.zst"):
        with SegmentReader(path) as reader:
            for envelope in (envelope for block in reader.blocks() for envelope in reader.events(block)):
                event = unpack(envelope)
                if isinstance(event, RequestsCompleted) and event.window == "measurement":
                    tokens = sum(request.output_tokens for request in event.requests)
                    end_ns = max(request.end_ns for request in event.requests)
                    ends[event.requests[0].batch_index] = Batch(end_ns, tokens)
    return list(ends.values())


def bare_batches(folder: Path) -> list[Batch]:
    """The batches of the bare loop, as far as it has printed them."""
    lines = (folder / "bare").read_text().splitlines(keepends=True)
    return [Batch(*map(int, line.split())) for line in lines if line.endswith("\n")]


def wait_until_both_run(folder: Path, running: Sequence[subprocess.Popen[bytes]]) -> float:
    """Seconds that a turn should last."""
    while len(measured_batches(folder)) < 2 or len(bare_batches(folder)) < BATCHES_PER_TURN:
        if any(process.poll() is not None for process in running):
            raise SystemExit("one of the programs ended early; run `llem measure` by hand to see why")
        time.sleep(1)
    ends = [batch.end_ns for batch in bare_batches(folder)]
    batch_s = (ends[-1] - ends[0]) / (len(ends) - 1) / 1e9
    return max(TURN_S, BATCHES_PER_TURN * batch_s)


def compare(model: str, *, pairs: int) -> list[tuple[float, float]]:
    """(measured, bare) tokens/s of neighbouring turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with programs(model, folder) as (measuring, bare):
            turn_s = wait_until_both_run(folder, (measuring, bare))
            for program in (measuring, bare):
                stop(program)
            turns = [(take_turn(measuring, turn_s), take_turn(bare, turn_s)) for _ in range(pairs)]
        ours, peer = measured_batches(folder), bare_batches(folder)
        rates = [(mine.rate(ours), theirs.rate(peer)) for mine, theirs in turns]
        return [(mine, theirs) for mine, theirs in rates if mine and theirs]


def main() -> None:
    """Let both take turns, and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--pairs", type=int, default=200, help="turns of each")
    parser.add_argument("--bare", action="store_true", help="only the bare loop, for ever")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.bare:
        bare_loop(plan(options.model))
    rates = compare(options.model, pairs=options.pairs)
    ratios = sorted(mine / theirs for mine, theirs in rates)
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"{len(ratios)} pairs of turns, half of their ratios from {low:.3f} to {high:.3f}", file=sys.stderr)
    line = {
        "benchmark": "harness",
        "ours": statistics.median(mine for mine, _ in rates),
        "peer": statistics.median(theirs for _, theirs in rates),
        "ratio": statistics.median(ratios),
        "unit": "tokens/s",
        "n": len(ratios),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
