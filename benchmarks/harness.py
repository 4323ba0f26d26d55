"""What a measurement costs the model: tokens/s inside `llem measure` against the same model and batches in a bare loop.

Both run in processes of their own, in turn, several times; the ratio is that of the medians. 1 means that measuring is free.
On a CPU both run the model on one thread (OMP_NUM_THREADS, unless it is set): two threads that wait for each other at every
operator lose tens of per cent whenever anything else runs on a small machine, on either side.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from llem.engines import EncodedPrompt, create_engine
from llem.engines.hf_load import choose_device, load_model
from llem.engines.prompts import batches, load_prompts
from llem.engines.sources import find_model
from llem.measure.supervisor import measure
from llem.plan import Plan
from llem.plan_file import resolve_plan
from llem.store import Store
from llem_events import SegmentReader, unpack
from llem_events.events import ProcessCompleted, WindowClosed, WindowOpened

WARMUP_BATCHES = 5


def plan(model: str, seconds: float) -> Plan:
    """The default plan without idle baselines."""
    options: dict[str, object] = {
        "model.name": model,
        "workload.min_duration_s": seconds,
        "windows.baseline_s": 0.0,
        "windows.baseline_after_s": 0.0,
        "decoding.ignore_eos": True,
    }
    return resolve_plan(None, options=options)


def measured_rate(what: Plan) -> float:
    """Output tokens per second inside the measurement window of a real measurement."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(what, Store(Path(folder) / "store"))
        assert outcome.is_complete, outcome.failures
        return sum(map(segment_rate, Path(folder).glob("store/log/*/worker-*.events.zst")))


def segment_rate(path: Path) -> float:
    """Output tokens over the duration of the measurement window, from one worker's segment."""
    opened_ns = closed_ns = tokens = 0
    with SegmentReader(path) as reader:
        for envelope in (envelope for block in reader.blocks() for envelope in reader.events(block)):
            match unpack(envelope):
                case WindowOpened(kind="measurement"):
                    opened_ns = envelope.at_ns
                case WindowClosed(kind="measurement"):
                    closed_ns = envelope.at_ns
                case ProcessCompleted(output_tokens=int(tokens)):
                    pass
    return tokens / (closed_ns - opened_ns) * 1e9


def bare_rate(what: Plan) -> float:
    """Output tokens per second of the shortest correct loop, for as long as a measurement runs."""
    engine = create_engine(what, device=None)
    engine.load()
    prompts = engine.encode(load_prompts(what))
    engine.close()
    device = choose_device(None, planned=what.engine.device)
    model = load_model(find_model(what.model), what.model, device)
    work = [
        (torch.tensor([prompt.token_ids for prompt in batch], device=device), batch)
        for batch in batches(prompts, what.engine.batch_size)
    ]
    for number in range(WARMUP_BATCHES):
        generate(model, *work[number % len(work)])
    tokens, started = 0, time.monotonic()
    while time.monotonic() - started < what.workload.min_duration_s:
        for ids, batch in work:
            tokens += generate(model, ids, batch)
    synchronize(device)
    return tokens / (time.monotonic() - started)


@torch.inference_mode()
def generate(model: Any, ids: torch.Tensor, batch: list[EncodedPrompt]) -> int:
    """Greedy decoding of one batch of prompts of one length; returns the number of output tokens."""
    steps = batch[0].max_new_tokens
    output = model(ids, use_cache=True, logits_to_keep=1)
    for _ in range(steps - 1):
        token = output.logits[:, -1].argmax(-1, keepdim=True)
        output = model(token, past_key_values=output.past_key_values, use_cache=True)
    output.logits[:, -1].argmax(-1).tolist()
    return steps * len(batch)


def synchronize(device: torch.device) -> None:
    """Wait for queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_rate_elsewhere(model: str, seconds: float) -> float:
    """The bare loop in a fresh process, as the worker's is."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.harness",
        "--bare",
        "--model",
        model,
        "--seconds",
        str(seconds),
    ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Run both in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare", action="store_true", help="only the bare loop; prints its tokens/s")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    what = plan(options.model, options.seconds)
    if options.bare:
        print(bare_rate(what))
        return
    ours, peer = [], []
    for number in range(options.rounds):
        ours.append(measured_rate(what))
        peer.append(bare_rate_elsewhere(options.model, options.seconds))
        print(
            f"round {number}: measured {ours[-1]:.1f}, bare {peer[-1]:.1f} tokens/s, ratio {ours[-1] / peer[-1]:.3f}",
            file=sys.stderr,
        )
    mine, theirs = statistics.median(ours), statistics.median(peer)
    line = {
        "benchmark": "harness",
        "ours": mine,
        "peer": theirs,
        "ratio": mine / theirs,
        "unit": "tokens/s",
        "n": options.rounds,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
