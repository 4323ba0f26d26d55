"""Processes that a wrapped program leaves behind when it ends: a daemon goes on working, and nobody measures it."""

import os
import time
from pathlib import Path

from llem.meters.cpu_time import descendants
from llem_events.events import WarningRaised

PATIENCE_S = 0.5  # the rest of a pipeline may end a moment after its last command
_SHOWN = 5
_ZOMBIE = "Z"


def processes_left() -> dict[int, str]:
    """Process id -> name of every process below this one that does not end within PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := _living()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _living() -> dict[int, str]:
    pids = descendants(os.getpid()) - {os.getpid()}
    return {pid: name for pid in sorted(pids) if (name := _name_of_living(pid))}


def _name_of_living(pid: int) -> str | None:
    """None for one that has ended, waited for or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, fields = stat.partition(" (")[2].rpartition(") ")
    return None if fields.startswith(_ZOMBIE) else name


def warning(left: dict[int, str]) -> WarningRaised:
    """What is told of them."""
    shown = ", ".join(f"{name} {pid}" for pid, name in list(left.items())[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    text = f"the program left processes behind, whose work is not measured from here on: {shown}{more}"
    return WarningRaised(code="program_left_processes", text=text, value=float(len(left)))
