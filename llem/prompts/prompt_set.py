"""All prompts of an experiment: seeded synthetic ones or those of a file, shared over processes, cut into batches."""

import hashlib
import random
from collections.abc import Collection, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import msgspec

from llem.errors import PlanError
from llem.plan import Plan, WorkloadPlan
from llem.plan_file import path_of
from llem.prompts.prompt import EncodedPrompt, Prompt, draw_length
from llem.prompts.records import read_records
from llem.prompts.rows import PromptRow, read_row

T = TypeVar("T")
MAX_PROMPT_CHARS = 2**28
MAX_SYNTHETIC_TOKENS = 2**27
MAX_UNUSED_NAMES = 1000
_LISTED_NAMES = 12
_NAME_CHARS = 60


class PromptSet(msgspec.Struct, frozen=True, kw_only=True):
    """The prompts, and what a user should know of how they were read."""

    prompts: list[Prompt]
    notes: list[str] = []


def load_prompts(plan: Plan) -> list[Prompt]:
    """All `workload.requests` prompts of an experiment; a shorter file is gone through again from its start."""
    return read_prompt_set(plan).prompts


def read_prompt_set(plan: Plan) -> PromptSet:
    """The same, with what there is to say of the file. Raises PlanError."""
    workload = plan.workload
    if workload.source == "synthetic":
        return PromptSet(prompts=_synthetic_prompts(workload))
    rows = _FileRows(_prompt_file(workload))
    return PromptSet(prompts=_prompts_of(rows.take(workload.requests), workload), notes=rows.notes())


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


def _synthetic_prompts(workload: WorkloadPlan) -> list[Prompt]:
    rng, prefix_rng = random.Random(workload.seed), random.Random(f"{workload.seed}: prefixes")
    prompts = [
        _begun(
            Prompt(
                request_id=request_id,
                input_tokens=draw_length(workload.input_tokens, rng),
                max_new_tokens=draw_length(workload.output_tokens, rng),
                seed=rng.getrandbits(48),
            ),
            workload,
            prefix_rng,
        )
        for request_id in range(workload.requests)
    ]
    tokens = sum(prompt.input_tokens or 0 for prompt in prompts)
    if tokens > MAX_SYNTHETIC_TOKENS:
        raise PlanError(
            "the synthetic prompts are too large",
            found=f"{tokens} input tokens",
            expected=f"at most {MAX_SYNTHETIC_TOKENS}",
            hint="lower workload.requests or workload.input_tokens; the prompts are repeated anyway",
        )
    return prompts


def _begun(prompt: Prompt, workload: WorkloadPlan, rng: random.Random) -> Prompt:
    """The prompt, behind the tokens of its group where it is one of those that share some."""
    prefix = workload.prefix
    if rng.random() >= prefix.share:
        return prompt
    seed = workload.seed + rng.randrange(prefix.groups)
    return msgspec.structs.replace(
        prompt,
        input_tokens=(prompt.input_tokens or 0) + prefix.tokens,
        shared=((seed, prefix.tokens),),
    )


def _prompts_of(rows: Sequence[PromptRow], workload: WorkloadPlan) -> list[Prompt]:
    rng = random.Random(workload.seed)
    return [
        Prompt(
            request_id=request_id,
            text=row.text,
            messages=row.messages,
            max_new_tokens=row.max_new_tokens or draw_length(workload.output_tokens, rng),
        )
        for request_id, row in enumerate(islice(cycle(rows), workload.requests))
    ]


def _prompt_file(workload: WorkloadPlan) -> Path:
    if workload.path is None:
        raise PlanError(
            "no prompt file is named", expected="workload.path", hint="or set workload.source = 'synthetic'"
        )
    return path_of(workload.path)


class _FileRows:
    """The prompts of a file, no more of them than asked for, and what was left out on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unused: set[str] = set()
        self._without_question = 0
        self._chars = 0

    def take(self, count: int) -> list[PromptRow]:
        rows = list(islice(self._rows(), count))
        if not rows:
            raise PlanError(f"prompt file {self._path} has no prompts", expected="at least one")
        return rows

    def notes(self) -> list[str]:
        """One line for each thing that the file has and that was not used."""
        notes = []
        if self._unused:
            notes.append(f"{self._path}: not used: {_listed(self._unused)}")
        if self._without_question:
            notes.append(
                f"{self._path}: left out: {self._without_question} conversations in which no user asks"
            )
        return notes

    def _rows(self) -> Iterator[PromptRow]:
        for record in read_records(self._path):
            row = read_row(record, path=self._path)
            if row is None:
                self._without_question += 1
                continue
            if len(self._unused) < MAX_UNUSED_NAMES:
                self._unused |= row.unused
            self._count(row, record.line)
            yield row

    def _count(self, row: PromptRow, line: int) -> None:
        self._chars += len(row.text or "") + sum(len(message.content) for message in row.messages or ())
        if self._chars > MAX_PROMPT_CHARS:
            raise PlanError(
                f"prompts of {self._path} are too large",
                found=f"more than {MAX_PROMPT_CHARS} characters up to line {line}",
                hint="lower workload.requests",
            )


def _listed(names: Collection[str]) -> str:
    """The first of the names, as a terminal may show them, and how many more there are."""
    listed = [name if name.isprintable() else ascii(name) for name in sorted(names)[:_LISTED_NAMES]]
    more = len(names) - len(listed)
    return ", ".join(name[:_NAME_CHARS] for name in listed) + (f" and {more} more" if more else "")
