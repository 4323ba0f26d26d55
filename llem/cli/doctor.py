"""llem doctor."""

import sys

import msgspec

from llem.cli import console
from llem.cli.options import JsonOption, StoreOption
from llem.measure.doctor import Check, checks
from llem.store import Store

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skipped": "-   "}


def doctor(json: JsonOption = False, store: StoreOption = None) -> None:
    """Say what can be measured here, what not and why it matters, and the command that fixes it."""
    found = checks(Store.locate(store).path)
    if json:
        console.say(msgspec.json.encode(found).decode())
    else:
        for check in found:
            _print(check)
    sys.exit(console.FAILED if any(check.status == "fail" for check in found) else console.DONE)


def _print(check: Check) -> None:
    _say(f"{MARKS[check.status]}  {check.name}: {check.found}")
    if check.status in ("warn", "fail"):
        _say(f"      why  {check.why}")
        if check.fix:
            _say(f"      fix  {check.fix}")


def _say(line: str) -> None:
    console.say(console.folded(line, sys.stdout))
