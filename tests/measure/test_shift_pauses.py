"""Random pauses between batches, so that a load keeps no step with a sensor that sees a part of the time."""

from collections.abc import Sequence
from typing import Any

import pytest

from llem.engines import EncodedPrompt
from llem.errors import PlanError
from llem.measure.workload import BatchRunner, Progress
from llem.plan import Plan, WorkloadPlan
from llem.plan_file import config_hash, convert
from llem_events.events import Request


class AtOnce:
    """An engine that answers at once, and a log that keeps nothing."""

    def run(self, batch: Sequence[EncodedPrompt], **about: Any) -> list[Request]:
        return [
            Request(
                request_id=prompt.request_id,
                batch_index=about["batch_index"],
                batch_size=len(batch),
                arrival_ns=0,
                start_ns=0,
                end_ns=1,
                input_tokens=1,
                output_tokens=1,
                finish_reason="length",
            )
            for prompt in batch
        ]

    def append(self, event: object, *, at_ns: int) -> None:
        """Nobody reads it."""


def pauses(shift_pauses_s: float) -> list[float]:
    """Those of twenty batches."""
    made: list[float] = []
    prompts = [EncodedPrompt(request_id=number, token_ids=[1], max_new_tokens=1) for number in range(40)]
    runner = BatchRunner(AtOnce(), prompts, AtOnce(), batch_size=2, stride=40)
    plan = WorkloadPlan(requests=40, min_duration_s=0.0, shift_pauses_s=shift_pauses_s)
    runner.measure(plan, should_stop=lambda: False, progress=Progress(lambda told: None), pause=made.append)
    return made


def test_a_random_pause_stands_between_two_batches() -> None:
    """Of up to so long as the plan says, never the same, and the same in every run of the plan."""
    made = pauses(0.1)
    assert len(made) == len(set(made)) == 19
    assert all(0 <= pause <= 0.1 for pause in made) and max(made) - min(made) > 0.05
    assert pauses(0.1) == made


def test_there_is_none_unless_asked_for() -> None:
    """A plan without the key measures as it always did, and has the digest that it always had."""
    assert pauses(0.0) == []
    assert config_hash(convert({"workload": {"shift_pauses_s": 0.1}})) != config_hash(Plan())


def test_requests_of_a_server_have_no_batches_to_pause_between() -> None:
    """The plan is refused, and says what shifts those."""
    with pytest.raises(PlanError, match=r"shift_pauses_s.*poisson"):
        convert({"workload": {"shift_pauses_s": 0.1}, "server": {"url": "http://127.0.0.1:1"}})
