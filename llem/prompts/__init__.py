"""What is asked of the model: seeded synthetic prompts or a file, shared over processes and cut into batches."""

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import msgspec

from llem.errors import PlanError
from llem.plan import LengthPlan, Plan, Positive, WorkloadPlan

T = TypeVar("T")


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan asks for: a text, or `input_tokens` seeded token ids where text is None."""

    request_id: int
    max_new_tokens: int
    text: str | None = None
    input_tokens: int | None = None
    seed: int = 0


class EncodedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine really gets."""

    request_id: int
    max_new_tokens: int
    token_ids: tuple[int, ...]
    text: str | None = None


class PromptRow(msgspec.Struct, frozen=True):
    """One line of a JSONL file; other fields are left alone."""

    prompt: str | None = None
    text: str | None = None
    max_new_tokens: Positive | None = None

    @property
    def content(self) -> str:
        return (self.text or "") if self.prompt is None else self.prompt


def load_prompts(plan: Plan) -> list[Prompt]:
    """All `workload.requests` prompts of an experiment; a shorter file is gone through again from its start."""
    workload = plan.workload
    if workload.source == "file":
        return _prompts_of_file(workload)
    return _synthetic_prompts(workload)


def share(prompts: Sequence[T], process_index: int, processes: int) -> list[T]:
    """The part of one process: every `processes`-th prompt, so that the shares differ by at most one."""
    return list(prompts[process_index::processes])


def batches(prompts: Sequence[T], batch_size: int) -> list[list[T]]:
    """Consecutive groups of `batch_size`; the last may be smaller."""
    return [list(prompts[start : start + batch_size]) for start in range(0, len(prompts), batch_size)]


def prompt_set_sha256(encoded: Sequence[EncodedPrompt]) -> str:
    """Digest of request ids, token ids and output limits, in order: equal sets put equal work to the engine."""
    digest = hashlib.sha256()
    for prompt in encoded:
        digest.update(msgspec.msgpack.encode((prompt.request_id, prompt.max_new_tokens, prompt.token_ids)))
    return digest.hexdigest()


def draw_length(lengths: LengthPlan, rng: random.Random) -> int:
    """A token count from the distribution; `mean` is the arithmetic mean before the cut to [min, max]."""
    if lengths.kind == "fixed":
        return lengths.mean
    if lengths.min > lengths.max:
        raise PlanError(
            "lengths cannot be drawn", found=f"min {lengths.min} > max {lengths.max}", expected="min <= max"
        )
    if lengths.kind == "uniform":
        return rng.randint(lengths.min, lengths.max)
    location = math.log(lengths.mean) - lengths.spread**2 / 2
    drawn = round(rng.lognormvariate(location, lengths.spread))
    return min(max(drawn, lengths.min), lengths.max)


def _synthetic_prompts(workload: WorkloadPlan) -> list[Prompt]:
    rng = random.Random(workload.seed)
    return [
        Prompt(
            request_id=request_id,
            input_tokens=draw_length(workload.input_tokens, rng),
            max_new_tokens=draw_length(workload.output_tokens, rng),
            seed=rng.getrandbits(48),
        )
        for request_id in range(workload.requests)
    ]


def _prompts_of_file(workload: WorkloadPlan) -> list[Prompt]:
    rng = random.Random(workload.seed)
    rows = islice(cycle(_read_rows(_prompt_file(workload))), workload.requests)
    return [
        Prompt(
            request_id=request_id,
            text=row.content,
            max_new_tokens=row.max_new_tokens or draw_length(workload.output_tokens, rng),
        )
        for request_id, row in enumerate(rows)
    ]


def _prompt_file(workload: WorkloadPlan) -> Path:
    if workload.path is None:
        raise PlanError(
            "no prompt file is named", expected="workload.path", hint="or set workload.source = 'synthetic'"
        )
    return Path(workload.path).expanduser()


def _read_rows(path: Path) -> list[PromptRow]:
    parse = _parse_json_line if path.suffix in {".jsonl", ".ndjson"} else _parse_text_line
    rows = [parse(path, number, line) for number, line in _lines(path)]
    if not rows:
        raise PlanError(f"prompt file {path} is empty", expected="at least one prompt")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise PlanError(
            f"prompt file {path} is not UTF-8", found=f"byte {error.start}: {error.reason}"
        ) from None
    except OSError as error:
        raise PlanError(
            f"prompt file {path} cannot be read", found=error.strerror, hint="check workload.path"
        ) from None
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _parse_text_line(path: Path, number: int, line: str) -> PromptRow:
    return PromptRow(text=line.rstrip("\r"))


def _parse_json_line(path: Path, number: int, line: str) -> PromptRow:
    try:
        row = msgspec.json.decode(line, type=PromptRow)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PlanError(f"{path} line {number}", found=error, expected='{"prompt": "..."}') from None
    if not row.content:
        raise PlanError(
            f"{path} line {number} has no prompt", expected="a field `prompt` or `text` that is not empty"
        )
    return row
