"""The requests of a window as bytes: each prompt as the whole HTTP message that asks it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llem.errors import PlanError
from llem.load.http1 import Target
from llem.load.openai import PATHS, Endpoint, Prepared, RequestWriter
from llem.plan import Plan
from llem.prompts import Prompt


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known of a server to ask it."""

    base_url: str
    model: str
    body: Mapping[str, Any]
    api_key_env: str | None
    vocabulary: tuple[int, int] | None


class Source:
    """The n-th request is the prompt n of the plan; the prompts are gone through again from their start."""

    def __init__(
        self, plan: Plan, prompts: Sequence[Prompt], server: Server, *, is_warmup: bool = False
    ) -> None:
        """What a warm-up draws is drawn anew for a measurement, so that no cache knows it. Raises PlanError."""
        endpoint = _endpoint(plan, prompts)
        self._prompts, self._is_warmup = prompts, is_warmup
        self._head = _head(server, endpoint)
        self._writer = RequestWriter(
            endpoint,
            model=server.model,
            extra=server.body,
            vocabulary=server.vocabulary,
            keeps_text=plan.workload.record_text,
        )

    def request(self, number: int) -> tuple[bytes, Prepared]:
        """The message of the n-th request, and what there is to know of it."""
        repeat, index = divmod(number, len(self._prompts))
        round_index = -1 - repeat if self._is_warmup else repeat
        prepared = self._writer.prepare(self._prompts[index], round_index=round_index)
        return self._head % len(prepared.body) + prepared.body, prepared


def _endpoint(plan: Plan, prompts: Sequence[Prompt]) -> Endpoint:
    has_messages = any(prompt.messages is not None for prompt in prompts)
    if plan.load.endpoint == "auto":
        return "chat" if has_messages else "completions"
    if has_messages and plan.load.endpoint == "completions":
        found = "completions, and prompts of messages"
        raise PlanError("plan key load.endpoint", found=found, expected="chat or auto")
    return plan.load.endpoint


def _head(server: Server, endpoint: Endpoint) -> bytes:
    """Request line and headers, with a place for the length."""
    target = Target(server.base_url)
    key = None if server.api_key_env is None else _api_key(server.api_key_env)
    lines = [
        f"POST {target.base}{PATHS[endpoint]} HTTP/1.1",
        f"Host: {target.authority}",
        "User-Agent: llem",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        *([] if key is None else [f"Authorization: Bearer {key}"]),
    ]
    return "\r\n".join(lines).encode().replace(b"%", b"%%") + b"\r\nContent-Length: %d\r\n\r\n"


def _api_key(variable: str) -> str:
    """The key itself, which no message, log or screen holds."""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        found = "an empty or unprintable one" if variable in os.environ else "none"
        raise PlanError(f"environment variable {variable}", found=found, expected="the server's API key")
    return key
