"""llem doctor."""

import sys
from typing import Annotated

import msgspec
import typer

from llem.cli import console
from llem.cli.options import JsonOption, StoreOption
from llem.measure.device_settings import put_back_left
from llem.measure.doctor import Check, checks
from llem.store import Store

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skipped": "-   "}


def doctor(
    restore: Annotated[
        bool, typer.Option("--restore", help="Put back what a killed run has set on devices, and stop.")
    ] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Say what can be measured here, what not and why it matters, and the command that fixes it."""
    if restore:
        sys.exit(_restore(Store.locate(store)))
    found = checks(Store.locate(store).path)
    if json:
        console.say(msgspec.json.encode(found).decode())
    else:
        for check in found:
            _print(check)
    sys.exit(console.FAILED if any(check.status == "fail" for check in found) else console.DONE)


def _restore(store: Store) -> int:
    done = put_back_left(store.settings_path)
    for device in done.devices:
        _say(f"put back: {device}")
    for problem in done.problems:
        console.complain(problem)
    if not (done.devices or done.problems):
        console.note(f"llem: no run has left anything set in {store.path}")
    return console.FAILED if done.problems else console.DONE


def _print(check: Check) -> None:
    _say(f"{MARKS[check.status]}  {check.name}: {check.found}")
    if check.status in ("warn", "fail"):
        _say(f"      why  {check.why}")
        if check.fix:
            _say(f"      fix  {check.fix}")


def _say(line: str) -> None:
    console.say(console.folded(line, sys.stdout))
