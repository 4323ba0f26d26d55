"""One finding of the doctor."""

from typing import Literal

import msgspec

Status = Literal["ok", "warn", "fail", "skipped"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, what was found, why it matters, and what to do about it."""

    name: str
    status: Status
    found: str
    why: str
    fix: str | None = None  # a command where there is one
