"""The prompts of one process as tokens, and what becomes of those that the model cannot take."""

from collections.abc import Sequence
from typing import Literal

from llem.engines import EncodedPrompt, Engine
from llem.errors import EngineError
from llem.prompts import Prompt
from llem_events.events import Request, WarningRaised

TooLong = Literal["fail", "skip", "truncate"]


def encode(
    engine: Engine, prompts: Sequence[Prompt], *, too_long: TooLong
) -> tuple[list[EncodedPrompt], list[WarningRaised]]:
    """The prompts to ask, and what to say of the others. Raises EngineError where no prompt is left that can be asked."""
    encoded = engine.encode(prompts)
    asked = [prompt for prompt in encoded if not (too_long == "skip" and prompt.is_too_long)]
    if not any(prompt.refusal is None for prompt in asked):
        raise EngineError(f"none of {len(encoded)} prompts can be asked: {_first_refusal(encoded)}")
    return asked, _warnings(encoded, asked)


def refused_requests(prompts: Sequence[EncodedPrompt], *, batch_index: int, at_ns: int) -> list[Request]:
    """The failed requests of prompts that never reached the engine."""
    return [
        Request(
            request_id=prompt.request_id,
            batch_index=batch_index,
            batch_size=len(prompts),
            arrival_ns=at_ns,
            start_ns=at_ns,
            end_ns=at_ns,
            input_tokens=0,
            output_tokens=0,
            finish_reason="error",
            error=prompt.refusal,
        )
        for prompt in prompts
    ]


def _first_refusal(encoded: Sequence[EncodedPrompt]) -> str | None:
    return next((prompt.refusal for prompt in encoded if prompt.refusal is not None), None)


def _warnings(encoded: Sequence[EncodedPrompt], asked: Sequence[EncodedPrompt]) -> list[WarningRaised]:
    left_out = len(encoded) - len(asked)
    shortened = sum(prompt.is_too_long and prompt.refusal is None for prompt in asked)
    refused = [prompt for prompt in asked if prompt.refusal is not None]
    warnings = []
    if left_out:
        text = f"{left_out} of {len(encoded)} prompts are too long for the model and were left out"
        warnings.append(WarningRaised(code="prompts_left_out", text=text, value=float(left_out)))
    if shortened:
        text = f"{shortened} of {len(encoded)} prompts are too long for the model and lost their beginning"
        warnings.append(WarningRaised(code="prompts_truncated", text=text, value=float(shortened)))
    if refused:
        text = (
            f"{len(refused)} of {len(encoded)} prompts cannot be asked and fail, "
            f"the first is request {refused[0].request_id}: {refused[0].refusal}"
        )
        warnings.append(WarningRaised(code="prompts_refused", text=text, value=float(len(refused))))
    return warnings
