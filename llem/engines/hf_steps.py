"""When each step's tokens existed, on the host's clock, and what they were, without holding the device up."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch

from llem.units import NS_PER_MS


class Step(NamedTuple):
    """The tokens of one step: of each sequence one, or several where drafts were accepted."""

    at_ns: int
    token_ids: list[list[int]]


class StepRecorder(Protocol):
    """Takes the tokens of each step, sequences by tokens, and gives them back once they exist."""

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        """Take a step; what it brought begins at column `since`, before it stands what earlier steps brought."""
        ...

    def completed(self) -> Iterator[Step]:
        """Steps that are done; waits for none."""
        ...

    def rest(self) -> Iterator[Step]:
        """All other steps, waiting for them."""
        ...


class HostSteps:
    """Steps on a device that computes when asked: a step is done when it is recorded.

    The tokens are read when they are asked for, those of many steps at once.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int]] = []
        self._token_ids: Any = None

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        self._steps.append((time.monotonic_ns(), since))
        self._token_ids = token_ids

    def completed(self) -> Iterator[Step]:
        steps, self._steps = self._steps, []
        if not steps:
            return
        first = steps[0][1]
        rows = self._token_ids[:, first:].tolist()
        ends = [since - first for _, since in steps[1:]] + [None]
        for (at_ns, since), end in zip(steps, ends, strict=True):
            yield Step(at_ns, [row[since - first : end] for row in rows])

    rest = completed


class CudaSteps:
    """Steps on a CUDA stream: each is copied to pinned memory and followed by an event.

    Event times are mapped to the host's clock through an anchor, an event awaited on the idle stream. Between anchor
    and event the two clocks drift by some tens of parts per million: about 1 ms in half a minute.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Any, Any]] = deque()
        self._anchor = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        self._anchor.record()
        self._anchor.synchronize()
        self._anchor_ns = time.monotonic_ns()

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        new = token_ids[:, since:]
        on_host = torch.empty(new.shape, dtype=new.dtype, pin_memory=True)
        on_host.copy_(new, non_blocking=True)
        done = torch.cuda.Event(enable_timing=True)
        done.record()
        self._pending.append((done, on_host))

    def completed(self) -> Iterator[Step]:
        while self._pending and self._pending[0][0].query():
            yield self._take()

    def rest(self) -> Iterator[Step]:
        while self._pending:
            yield self._take()

    def _take(self) -> Step:
        done, on_host = self._pending.popleft()
        done.synchronize()
        elapsed_ns = round(self._anchor.elapsed_time(done) * NS_PER_MS)
        at_ns = min(self._anchor_ns + elapsed_ns, time.monotonic_ns())  # the anchor is read a little late
        return Step(at_ns, on_host.tolist())


def step_recorder(device: torch.device) -> StepRecorder:
    """The recorder for a device, made while nothing is queued on it."""
    return CudaSteps() if device.type == "cuda" else HostSteps()
