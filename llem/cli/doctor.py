"""llem doctor."""

import os
import sys
from typing import Annotated

import msgspec
import typer

from llem.cli import console
from llem.cli.options import JsonOption, StoreOption
from llem.cli.table import write_table
from llem.measure.device_settings import put_back_left
from llem.measure.doctor import Check, checks
from llem.measure.launch import launch_of
from llem.measure.rank_check import RankFacts, rehearse
from llem.measure.rank_member import RefusedError
from llem.measure.rendezvous import ranks_told
from llem.store import Store

RANK_COLUMNS = ("rank", "host", "local rank", "GPUs", "GPUs seen", "clock against rank 0")
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skipped": "-   "}


def doctor(
    restore: Annotated[
        bool, typer.Option("--restore", help="Put back what a killed run has set on devices, and stop.")
    ] = False,
    ranks: Annotated[
        bool,
        typer.Option(
            "--ranks", help="Under a launcher: what each rank would use, and how well its clock is known."
        ),
    ] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Say what can be measured here, what not and why it matters, and the command that fixes it."""
    if ranks:
        sys.exit(_ranks(json=json))
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


def _ranks(*, json: bool) -> int:
    launch = launch_of(os.environ)
    for contradiction in launch.contradictions:
        console.complain(contradiction)
    if launch.rank is None:
        console.say("alone: no launcher has started this process together with others")
        return console.DONE
    try:
        facts = rehearse(launch.rank)
    except RefusedError as error:
        return error.exit_status
    if not launch.rank.leads:
        return console.DONE
    if json:
        console.say(msgspec.json.encode(facts).decode())
    else:
        console.note(f"llem: {launch.rank.size} ranks by the variables of {launch.rank.launcher}")
        write_table(sys.stdout, RANK_COLUMNS, [_rank_row(each) for each in facts], instead="--json")
    return console.FAILED if any(each.claimed_by for each in facts) else console.DONE


def _rank_row(facts: RankFacts) -> list[object]:
    gpus = ", ".join(facts.gpus) or "none"
    if facts.claimed_by:
        gpus += f" (also of {ranks_told(facts.claimed_by)})"
    offset, error = facts.clock_offset_us, facts.clock_error_us
    clock = "its own" if offset is None else f"{offset:+,.0f} us, within {error:,.0f} us"
    return [facts.rank, facts.host, facts.local_rank, gpus, facts.gpus_seen, clock]


def _print(check: Check) -> None:
    _say(f"{MARKS[check.status]}  {check.name}: {check.found}")
    if check.status in ("warn", "fail"):
        _say(f"      why  {check.why}")
        if check.fix:
            _say(f"      fix  {check.fix}")


def _say(line: str) -> None:
    console.say(console.folded(line, sys.stdout))
