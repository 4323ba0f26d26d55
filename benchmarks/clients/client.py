"""What a load generator is to the comparison: the work that it is given, and what it says of each request."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MODEL = "fake"


class Work(NamedTuple):
    """What is asked of the fake server, and how it answers. Without a rate `in_flight` requests are always under way, with one it is the cap."""

    name: str
    behaviour: Mapping[str, float | bool]
    requests: int
    tokens: int
    in_flight: int
    rate_per_s: float | None = None


class Told(NamedTuple):
    """What a client says of one request; None where it says nothing. Its clock is its own."""

    start_ns: float
    ttft_ms: float | None
    itl_ms: float | None
    e2e_ms: float
    due_e2e_ms: float | None
    tokens: int


class Client(NamedTuple):
    """One load generator. `command` gets the folder of its programs, the server's address, the work, and a folder for its files, where a
    tokenizer lies in `tokenizer`; `read` gets that folder."""

    name: str
    package: str | None
    command: Callable[[Path, str, Work, Path], Sequence[object]]
    read: Callable[[Path], list[Told]]
    variables: Mapping[str, str] = {}
