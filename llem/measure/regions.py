"""Hears what a wrapped program says of itself through a pipe, and writes its regions and its work to the log."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from types import TracebackType

import msgspec

from llem.region_lines import MAX_COUNT, MAX_LINE, VARIABLE, Place, RegionLine, WorkLine, read
from llem_events import BackgroundWriter, LogWriteError
from llem_events.events import Event, Region, RegionsReported, WarningRaised, WorkReported
from llem_events.format import BLOCK_TARGET_NS

PIPE_BYTES = 2**20  # as many as anybody may ask for
MAX_REGIONS = 100_000  # of a run; a result with more is no longer read by anybody
MAX_OPEN = 10_000
MAX_PROCESSES = 100_000  # of a program, that report work
EVENT_REGIONS = 1_000  # of one event, which they keep below its limit whatever their names are


class Listener:
    """The end of the pipe that llem keeps; what is said while nobody reads waits in it."""

    def __init__(self, log: BackgroundWriter) -> None:
        self._log = log
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A machine that grants less has room for less.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._began_ns = self._flushed_ns = time.monotonic_ns()
        self._rest = b""
        self._book = _Book()
        self._work: dict[str, WorkLine] = {}
        self._lost: dict[str, int] = {}
        self._told: WorkReported | None = None
        self._refused = 0

    @property
    def write_end(self) -> int:
        """The descriptor that the program inherits."""
        return self._write_end

    @property
    def environment(self) -> dict[str, str]:
        """What tells the program where the pipe is."""
        pipe = os.fstat(self._write_end)
        return {VARIABLE: str(Place(self._write_end, os.getpid(), pipe.st_dev, pipe.st_ino))}

    def fileno(self) -> int:
        """For select."""
        return self._read_end

    def __enter__(self) -> "Listener":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._read_end)
        os.close(self._write_end)

    def hear(self) -> None:
        """Take what is in the pipe, and write down once a second what was heard."""
        with contextlib.suppress(BlockingIOError):
            self._take(os.read(self._read_end, PIPE_BYTES))
        if time.monotonic_ns() - self._flushed_ns >= BLOCK_TARGET_NS or self._book.is_full:
            self._flush()

    def end(self) -> None:
        """The program has ended: write down what is left, and what was not understood."""
        self.hear()
        self._book.note_open(older_than_ns=time.monotonic_ns())
        self._flush()
        for warning in self._doubts():
            self._append(warning, time.monotonic_ns())

    def _take(self, heard: bytes) -> None:
        *lines, rest = (self._rest + heard).split(b"\n")
        # What is longer than any line is none of ours.
        self._rest = rest if len(rest) < MAX_LINE else b"?"
        now_ns = time.monotonic_ns()
        for line in filter(None, lines):
            try:
                self._note(read(line), now_ns)
            except ValueError:
                self._refused += 1

    def _note(self, line: RegionLine | WorkLine, now_ns: int) -> None:
        """Raises ValueError for moments at which the program did not run."""
        if isinstance(line, RegionLine):
            if not self._began_ns <= line.began_ns <= (line.ended_ns or now_ns) <= now_ns:
                raise ValueError("a region outside of the program's time")
            self._book.note(line)
        elif line.speaker not in self._work and len(self._work) >= MAX_PROCESSES:
            raise ValueError("more processes than are counted")
        else:
            self._work[line.speaker] = line
        if line.lost:
            self._lost[line.speaker] = line.lost

    def _flush(self) -> None:
        now_ns = self._flushed_ns = time.monotonic_ns()
        self._book.note_open(older_than_ns=now_ns - BLOCK_TARGET_NS)
        for regions in self._book.taken():
            self._append(RegionsReported(regions=regions), now_ns)
        work = self._all_work()
        if work is not None and work != self._told:
            self._append(work, now_ns)
            self._told = work

    def _append(self, event: Event, at_ns: int) -> None:
        """A log that has failed says so itself; the program goes on to its end."""
        with contextlib.suppress(LogWriteError):
            self._log.append(event, at_ns=at_ns)

    def _all_work(self) -> WorkReported | None:
        """None where nothing was reported."""
        sums = {
            name: total for name in WorkReported.__struct_fields__ if (total := self._sum(name)) is not None
        }
        for part in self._told_in_part():
            del sums[part]
        return WorkReported(**sums) if sums else None

    def _sum(self, name: str) -> int | None:
        """Of all processes; None where none has named it."""
        counts = [count for line in self._work.values() if (count := getattr(line, name)) is not None]
        return min(sum(counts), MAX_COUNT) if counts else None

    def _told_in_part(self) -> list[str]:
        """Counts that some reports name and others, of tokens that may be such, do not."""
        return [
            name
            for name, untold in (
                ("input_tokens", "tokens_without_input"),
                ("output_tokens", "tokens_without_output"),
            )
            if self._sum(name) is not None and self._sum(untold)
        ]

    def _doubts(self) -> Iterator[WarningRaised]:
        if lost := sum(self._lost.values()):
            text = f"{lost} messages of the program about its regions and its work were lost: it sent more than were read"
            yield WarningRaised(code="region_messages_lost", text=text, value=float(lost))
        for name in self._told_in_part():
            text = f"the program told its {name} in some reports and in others only tokens, so that they are not known"
            yield WarningRaised(code=f"{name}_told_in_part", text=text)
        if self._refused:
            text = f"{self._refused} lines that the program wrote to the descriptor of its regions are none, and were left out"
            yield WarningRaised(code="region_messages_refused", text=text, value=float(self._refused))
        if self._book.left_out:
            text = f"{self._book.left_out} regions of the program were left out: a run keeps {MAX_REGIONS:,}"
            yield WarningRaised(
                code="regions_left_out",
                text=text,
                value=float(self._book.left_out),
                threshold=float(MAX_REGIONS),
            )


class _Book:
    """Regions by their ids while they are open, and those that wait to be written."""

    def __init__(self) -> None:
        self._open: dict[str, Region] = {}
        self._indices: dict[
            str, int
        ] = {}  # of all: a forked process may begin one when that around it has ended
        self._untold: set[str] = set()  # of the open ones, those that no event holds yet
        self._waiting: list[Region] = []
        self.left_out = 0

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= EVENT_REGIONS

    def note(self, line: RegionLine) -> None:
        """A region that began, or ended; one whose beginning was lost begins now."""
        region = self._open.pop(line.id, None)
        if region is None:
            if len(self._indices) >= MAX_REGIONS or len(self._open) >= MAX_OPEN:
                self.left_out += line.ended_ns is not None
                return
            region = self._begun(line)
        if line.ended_ns is None:
            self._open[line.id] = region
            self._untold.add(line.id)
        else:
            self._untold.discard(line.id)
            self._waiting.append(
                msgspec.structs.replace(
                    region, ended_ns=line.ended_ns, tokens=line.tokens, requests=line.requests
                )
            )

    def note_open(self, *, older_than_ns: int) -> None:
        """Those that go on are told once: their process may be killed before they end."""
        lasting = {id_ for id_ in self._untold if self._open[id_].began_ns <= older_than_ns}
        self._untold -= lasting
        self._waiting.extend(
            self._open[id_] for id_ in sorted(lasting, key=lambda id_: self._open[id_].index)
        )

    def taken(self) -> Iterator[list[Region]]:
        """All that wait, in as many events as they need."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), EVENT_REGIONS):
            yield waiting[start : start + EVENT_REGIONS]

    def _begun(self, line: RegionLine) -> Region:
        index = self._indices[line.id] = len(self._indices)
        return Region(
            index=index,
            name=line.name,
            parent_index=self._indices.get(line.parent),
            process=line.speaker,
            began_ns=line.began_ns,
        )
