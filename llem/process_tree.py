"""A process and all below it, as Linux tells them under /proc, and what ended one."""

import signal
from pathlib import Path

# Field of /proc/PID/stat after the name, see proc(5).
_PPID = 1
_ZOMBIE = "Z"


def stat_of(pid: int, proc: Path) -> list[int] | None:
    """The numbers of /proc/PID/stat after the name, the first of which is left out; None where there is no such process."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name may hold spaces and brackets
    return [0, *map(int, fields[1:])]


def descendants(pid: int, *, proc: Path = Path("/proc")) -> set[int]:
    """The process and every process below it."""
    if (proc / str(pid) / "task" / str(pid) / "children").exists():
        return {pid} | {below for child in _children(pid, proc) for below in descendants(child, proc=proc)}
    return _descendants_by_parent(pid, proc)


def _children(pid: int, proc: Path) -> set[int]:
    """Children that any of the process's threads has started."""
    found: set[int] = set()
    try:
        for thread in (proc / str(pid) / "task").iterdir():
            found |= set(map(int, (thread / "children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process or a thread ended meanwhile
    return found


def _descendants_by_parent(pid: int, proc: Path) -> set[int]:
    """The same on a kernel without /proc/PID/task/TID/children: every process is asked for its parent."""
    pids = [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    parents = {each: stat[_PPID] for each in pids if (stat := stat_of(each, proc))}
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def name_of_living(pid: int) -> str | None:
    """Its name; None for one that has ended, waited for or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, fields = stat.partition(" (")[2].rpartition(") ")
    return None if fields.startswith(_ZOMBIE) else name


def ending_signal(status: int) -> str | None:
    """What ended a process with such an exit status of `subprocess`; None where it ended by itself. Real-time signals have numbers alone."""
    if status >= 0:
        return None
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
