"""CPU time of a process and all its descendants, from Linux's /proc."""

import os
from collections.abc import Iterator
from pathlib import Path

from llem.units import NS_PER_S

NS_PER_CLOCK_TICK = NS_PER_S // os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name, see proc(5).
_PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14


def _stat(pid: int, proc: Path) -> list[int] | None:
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
    parents = {each: stat[_PPID] for each in pids if (stat := _stat(each, proc))}
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


class CpuTime:
    """Sums a process tree; looks for new members only when asked to `refresh`."""

    def __init__(self, pid: int, *, proc: Path = Path("/proc")) -> None:
        self._pid, self._proc = pid, proc
        self._family = {pid}
        self._most_ns = 0
        self.refresh()

    def refresh(self) -> None:
        """Look for children that were started since."""
        self._family = descendants(self._pid, proc=self._proc)

    def total_ns(self) -> int | None:
        """CPU time so far, children that have ended included; None when the process itself is gone."""
        if _stat(self._pid, self._proc) is None:
            return None
        # a child's time vanishes until its parent has waited for it
        self._most_ns = max(self._most_ns, sum(self._each_ns()))
        return self._most_ns

    def _each_ns(self) -> Iterator[int]:
        for pid in self._family:
            if stat := _stat(pid, self._proc):
                yield (stat[_UTIME] + stat[_STIME] + stat[_CUTIME] + stat[_CSTIME]) * NS_PER_CLOCK_TICK
