"""Tracks of a timeline: processes and threads of the Trace Event format, and which slices may share one."""

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

TraceEvent = dict[str, Any]


class Numbers:
    """Ids of processes and threads, none given twice: a reader may take a thread by its number alone."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def process(self, name: str) -> tuple["Process", list[TraceEvent]]:
        """A process, and what names it."""
        pid = next(self._next)
        named = [_metadata("process_name", pid, pid, name=name)]
        return Process(pid=pid, numbers=self), [
            *named,
            _metadata("process_sort_index", pid, pid, sort_index=pid),
        ]

    def thread(self, pid: int, name: str) -> tuple[int, TraceEvent]:
        """A thread's number, and what names it."""
        tid = next(self._next)
        return tid, _metadata("thread_name", pid, tid, name=name)


class Process(msgspec.Struct, frozen=True):
    """What the timeline shows as one group: a run, a worker or a device."""

    pid: int
    numbers: Numbers

    def counter(self, name: str, at_us: int, **series: float) -> TraceEvent:
        """A value from this time on."""
        return {"ph": "C", "name": name, "pid": self.pid, "ts": at_us, "args": series}

    def instant(self, name: str, at_us: int, tid: int, **args: Any) -> TraceEvent:
        """Something that has no length."""
        return {"ph": "i", "s": "t", "name": name, "pid": self.pid, "tid": tid, "ts": at_us, "args": args}

    def lanes(self, name: str, *, nests: bool = False) -> "Lanes":
        """Threads of this process for slices of one kind."""
        return Lanes(self, name, nests=nests)


class Slice(msgspec.Struct, frozen=True):
    """A stretch of time; `inner` are the names and ends of what it consists of, one after the other."""

    name: str
    from_us: int
    to_us: int
    args: TraceEvent = {}
    inner: tuple["Slice", ...] = ()


class Lanes:
    """As many threads as are needed for slices, which come in the order of their starts, so that those on one nest or do not overlap."""

    def __init__(self, process: Process, name: str, *, nests: bool) -> None:
        self._process, self._name, self._nests = process, name, nests
        self._tids: list[int] = []
        self._open: list[list[int]] = []  # of each thread, the ends of what is open there

    def events(self, found: Slice) -> Iterator[TraceEvent]:
        """The slice and what it consists of, on the first thread that is free for it."""
        lane = next((lane for lane, ends in enumerate(self._open) if self._takes(ends, found)), None)
        if lane is None:
            lane = len(self._tids)
            number = f" {lane + 1}" if lane or not self._nests else ""
            tid, named = self._process.numbers.thread(self._process.pid, f"{self._name}{number}")
            self._tids.append(tid)
            self._open.append([])
            yield named
        self._open[lane].append(found.to_us)
        for piece in (found, *found.inner):
            yield self._complete(piece, self._tids[lane])

    def _takes(self, ends: list[int], found: Slice) -> bool:
        while ends and ends[-1] <= found.from_us:
            ends.pop()
        return not ends or (self._nests and found.to_us <= ends[-1])

    def _complete(self, piece: Slice, tid: int) -> TraceEvent:
        return {
            "ph": "X",
            "name": piece.name,
            "pid": self._process.pid,
            "tid": tid,
            "ts": piece.from_us,
            "dur": piece.to_us - piece.from_us,
            "args": piece.args,
        }


def _metadata(kind: str, pid: int, tid: int, **args: Any) -> TraceEvent:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}
