"""A layer of system calls that records each call, lets chosen ones fail, and knows which states a power cut may leave."""

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from llem_events.files import OsFiles

SECTOR_BYTES = 512
Fault = Literal["EIO", "ENOSPC", "EINTR", "short"]


class Call(NamedTuple):
    """One system call on a file, named by its first path, or a mark that the test set."""

    name: str
    path: Path
    written: bytes = b""
    target: Path | None = None
    count: int = 0


class RecordedFiles(OsFiles):
    """Does what it is asked, and remembers; calls in `faults` (call number -> fault) fail."""

    def __init__(self, faults: dict[int, Fault] | None = None, *, until_the_end: bool = False) -> None:
        self.calls: list[Call] = []
        self._faults = faults or {}
        self._until_the_end = until_the_end
        self._paths: dict[int, Path] = {}

    def mark(self, name: str, path: Path, count: int) -> None:
        """Put a fact of the test's own between the calls."""
        self.calls.append(Call(name, path, count=count))

    def _fault(self, call: Call) -> Fault | None:
        number = sum(1 for earlier in self.calls if earlier.name != "acknowledged")
        self.calls.append(call)
        if self._until_the_end:
            return next((fault for first, fault in self._faults.items() if number >= first), None)
        return self._faults.get(number)

    def _enter(self, call: Call) -> None:
        fault = self._fault(call)
        if fault not in (None, "short"):
            raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))

    def create(self, path: Path) -> int:
        self._enter(Call("create", path))
        fd = super().create(path)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, chunk: memoryview) -> int:
        fault = self._fault(Call("write", self._paths[fd], bytes(chunk)))
        if fault == "short":
            return super().write(fd, chunk[: max(1, len(chunk) // 2)])
        if fault == "ENOSPC":
            super().write(fd, chunk[: len(chunk) // 2])  # a full disk takes what fits
        if fault is not None:
            raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))
        return super().write(fd, chunk)

    def sync(self, fd: int) -> None:
        self._enter(Call("sync", self._paths[fd]))
        super().sync(fd)

    def truncate(self, fd: int, length: int) -> None:
        self._enter(Call("truncate", self._paths[fd], count=length))
        super().truncate(fd, length)

    def close(self, fd: int) -> None:
        super().close(fd)  # the kernel closes the descriptor even where close fails
        self._enter(Call("close", self._paths[fd]))

    def sync_directory(self, path: Path) -> None:
        self._enter(Call("sync_directory", path))
        super().sync_directory(path)

    def reserve(self, directory: Path, length: int) -> int:
        self._enter(Call("reserve", directory))
        fd = super().reserve(directory, length)
        self._paths[fd] = directory
        return fd

    def rename(self, source: Path, target: Path) -> None:
        self._enter(Call("rename", source, target=target))
        super().rename(source, target)


def contents_after_power_cut(calls: list[Call], path: Path) -> Iterator[bytes]:
    """Every legal content of the file created as `path`, if the power fails after the last of `calls`.

    What was synced is there. Of the writes since then, any number of the last ones is missing, and of the last that is there
    any subset of its sectors is, the others being zeros or, at the end, missing with the file's length.
    """
    durable, pending = _durable_and_pending(calls, path)
    yield durable
    base = durable
    for call in pending:
        if call.name == "truncate":
            base = base[: call.count]
            yield base
        else:
            yield from _with_lost_sectors(base, call.written)
            base += call.written


def _durable_and_pending(calls: list[Call], path: Path) -> tuple[bytes, list[Call]]:
    durable, pending = b"", []
    for call in calls:
        if call.path == path and call.name in ("write", "truncate"):
            pending.append(call)
        elif call.path == path and call.name == "sync":
            for earlier in pending:
                durable = (
                    durable[: earlier.count] if earlier.name == "truncate" else durable + earlier.written
                )
            pending = []
    return durable, pending


def _with_lost_sectors(base: bytes, written: bytes) -> Iterator[bytes]:
    whole = base + written
    edges = [
        len(base),
        *range(len(base) // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES, len(whole), SECTOR_BYTES),
        len(whole),
    ]
    sectors = list(itertools.pairwise(edges))
    for kept in itertools.product((True, False), repeat=len(sectors)):
        state = bytearray(whole)
        for is_kept, (start, end) in zip(kept, sectors, strict=True):
            if not is_kept:
                state[start:end] = bytes(end - start)
        yield from (bytes(state[:end]) for end in edges)


def names_after_power_cut(calls: list[Call], folder: Path) -> Iterator[dict[str, Path]]:
    """Every legal directory, as name -> path under which the file was created; changes since its last sync may be lost."""
    changes: list[Call] = []
    durable: dict[str, Path] = {}
    for call in calls:
        if call.name in ("create", "rename"):
            changes.append(call)
        elif call.name == "sync_directory" and call.path == folder:
            for change in changes:
                _apply(durable, change)
            changes = []
    for kept in itertools.product((True, False), repeat=len(changes)):
        names = dict(durable)
        for change in itertools.compress(changes, kept):
            _apply(names, change)
        yield names


def _apply(names: dict[str, Path], change: Call) -> None:
    if change.target is None:
        names[change.path.name] = change.path
    elif change.path.name in names:
        names[change.target.name] = names.pop(change.path.name)
