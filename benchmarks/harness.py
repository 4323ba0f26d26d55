"""What a measurement costs the model: tokens/s inside `llem measure` against a bare `generate` of the same model and batches.

Both programs are whole, with sampler, supervisor and log on our side, and take turns (see benchmarks.turns): the result is the median of
the ratios of neighbouring turns. 1 means that measuring is free. The bare program is what a user writes who calls `generate` batch after
batch and reads the tokens: no observers, no times, no log. On a CPU both run the model on one thread (OMP_NUM_THREADS, unless it is set), which
leaves the second core of a small machine to whatever else runs on it. A turn lasts five batches: a model that takes seconds for one is compared
sooner with fewer output tokens.

    python -m benchmarks.harness [--model tiny-llama] [--output-tokens 32] [--rounds 8] [--pairs 25]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.turns import Program, Rates, Step, figures, printed_steps, take_turns
from llem.engines import EncodedPrompt, create_engine
from llem.engines.hf_model import choose_device, load_model
from llem.engines.sources import find_model
from llem.plan import Plan
from llem.plan_file import resolve_plan
from llem.prompts import batches, load_prompts
from llem_events import SegmentReader, unpack
from llem_events.events import RequestsCompleted

LONG_S = 86_400.0  # until it is killed
LLEM = "import llem.cli; llem.cli.main()"


class Work(NamedTuple):
    """What both programs do: the default plan's prompts, without an end-of-sequence."""

    model: str
    output_tokens: int

    @property
    def plan(self) -> Plan:
        """It as a plan."""
        options = {
            "model.name": self.model,
            "generation.ignore_eos": True,
            "workload.output_tokens.mean": self.output_tokens,
        }
        return resolve_plan(None, options=options)

    @property
    def arguments(self) -> list[str]:
        """It as the options of a benchmark."""
        return ["--model", self.model, "--output-tokens", str(self.output_tokens)]

    @property
    def settings(self) -> list[str]:
        """It as the options of `llem measure`."""
        return [
            *("--model", self.model, "--set", "generation.ignore_eos=true"),
            *("--set", f"workload.output_tokens.mean={self.output_tokens}"),
        ]


def bare_generate(what: Plan) -> None:
    """Generate for the plan's batches for ever, as a user's script would; print the end of each."""
    prompts = create_engine(what, device=None).encode(load_prompts(what))
    device = choose_device(None, planned=what.engine.device)
    model = load_model(find_model(what.model), what.model, device).model
    model.generation_config.eos_token_id = None
    work = list(batches(prompts, what.engine.batch_size))
    while True:
        for batch in work:
            tokens = generate(model, batch)
            print(time.monotonic_ns(), tokens, flush=True)


def generate(model: Any, batch: list[EncodedPrompt]) -> int:
    """A bare `generate` of one batch of prompts of one length; returns the number of output tokens, once they are on the host."""
    ids = torch.tensor([prompt.token_ids for prompt in batch], device=model.device)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=batch[0].max_new_tokens)
    return sum(len(row) for row in output[:, ids.shape[1] :].tolist())


@contextmanager
def programs(work: Work, folder: Path) -> Iterator[tuple[Program, Program]]:
    """The measurement and the bare program, started; killed on leaving."""
    with (folder / "bare").open("wb") as out:
        measuring = subprocess.Popen(
            [
                *(sys.executable, "-c", LLEM, "measure", *work.settings, "--store", str(folder / "store")),
                *("--set", f"workload.min_duration_s={LONG_S}"),
                *("--set", "windows.baseline_s=0", "--set", "windows.baseline_after_s=0"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        bare = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness", "--bare", *work.arguments], stdout=out
        )
    try:
        yield measuring, bare
    finally:
        for program in (measuring, bare):
            program.kill()
            program.wait()


def measured_batches(folder: Path) -> list[Step]:
    """The batches in the measurement window, from the worker's segment as far as it is written."""
    ends: dict[int, Step] = {}
    for path in folder.glob("store/log/*/worker-*.events.zst"):
        with SegmentReader(path) as reader:
            for envelope in (envelope for block in reader.blocks() for envelope in reader.events(block)):
                event = unpack(envelope)
                if isinstance(event, RequestsCompleted) and event.window == "measurement":
                    tokens = sum(request.output_tokens for request in event.requests)
                    end_ns = max(request.end_ns for request in event.requests)
                    ends[event.requests[0].batch_index] = Step(end_ns, tokens)
    return list(ends.values())


def compare(work: Work, *, pairs: int) -> list[Rates]:
    """Tokens/s, measured and bare, in neighbouring turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with programs(work, folder) as both:
            return take_turns(
                both, lambda: (measured_batches(folder), printed_steps(folder / "bare")), pairs=pairs
            )


def main() -> None:
    """Let both take turns, and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--output-tokens", type=int, default=32, help="of each sequence")
    parser.add_argument("--rounds", type=int, default=8, help="starts of both programs")
    parser.add_argument("--pairs", type=int, default=25, help="turns of each in a round")
    parser.add_argument("--bare", action="store_true", help="only the bare program, for ever")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = Work(options.model, options.output_tokens)
    if options.bare:
        bare_generate(work.plan)
    rounds = [compare(work, pairs=options.pairs) for _ in range(options.rounds)]
    print(json.dumps({"benchmark": "harness", **figures(rounds), "unit": "tokens/s"}))


if __name__ == "__main__":
    main()
