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

    def record(self, token_ids: Any) -> None: ...

    def completed(self) -> Iterator[Step]:
        """Steps that are done; waits for none."""
        ...

    def rest(self) -> Iterator[Step]:
        """All other steps, waiting for them."""
        ...


class HostSteps:
    """Steps on a device that computes when asked: a step is done when it is recorded."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def record(self, token_ids: Any) -> None:
        self._steps.append(Step(time.monotonic_ns(), token_ids.tolist()))

    def completed(self) -> Iterator[Step]:
        steps, self._steps = self._steps, []
        return iter(steps)

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

    def record(self, token_ids: Any) -> None:
        on_host = torch.empty(token_ids.shape, dtype=token_ids.dtype, pin_memory=True)
        on_host.copy_(token_ids, non_blocking=True)
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
