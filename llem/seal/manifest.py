"""The manifest of an experiment: a line for every segment that was sealed, and one for its results, each with the digests of what was read and written.

In a folder of this machine lines are added to a file, at an address each line is a file of its own, put there at once.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from llem.projections.sealed import manifest_folder
from llem.seal.segment import SealedFile, SealedSegment, make_folder

MANY, SUFFIX = "_manifest", ".jsonl"  # how the name of a file of many lines begins, and how each ends


class SealedResults(msgspec.Struct, frozen=True, kw_only=True):
    """What was made of a whole experiment, and of which segments."""

    experiment_id: str
    status: str
    log_bytes: dict[str, int]  # file in the log -> its bytes
    made_by: str  # digests of the code that decodes and derives
    files: Sequence[SealedFile] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line; one of the two is there."""

    segment: SealedSegment | None = None
    results: SealedResults | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines of an experiment say at last."""

    segments: dict[str, SealedSegment]  # by the name of the file in the log
    results: SealedResults | None

    @property
    def lines(self) -> list[Line]:
        """What it says, line by line."""
        segments = [Line(segment=segment) for segment in self.segments.values()]
        return segments if self.results is None else [*segments, Line(results=self.results)]

    @property
    def files(self) -> list[SealedFile]:
        """All that was sealed."""
        files = [file for segment in self.segments.values() for file in segment.files]
        return files if self.results is None else [*files, *self.results.files]


def read_manifest(root: Path, experiment_id: str) -> Manifest:
    """Of all who sealed it."""
    files = manifest_folder(root, experiment_id).glob(f"_*{SUFFIX}")
    return manifest_of((path.name, path.read_bytes()) for path in files)


def manifest_of(files: Iterable[tuple[str, bytes]]) -> Manifest:
    """What the files of a manifest say together, by their names. A line that a crash cut short says nothing."""
    segments: dict[str, SealedSegment] = {}
    results = None
    for _, content in sorted(files, key=lambda file: (not file[0].startswith(MANY), file[0])):
        for line in _lines(content):
            if line.segment is not None:
                segments[line.segment.file] = line.segment
            results = line.results or results
    return Manifest(segments=segments, results=results)


def file_name(line: Line) -> str:
    """That of a file for this line alone."""
    return f"_results{SUFFIX}" if line.segment is None else f"_segment-{line.segment.file}{SUFFIX}"


def encoded(line: Line) -> bytes:
    """The line as it is written."""
    return msgspec.json.encode(line) + b"\n"


def _lines(content: bytes) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    for written in content.splitlines():
        try:
            yield decoder.decode(written)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue


def append(root: Path, line: Line, *, rank: int | None) -> None:
    """Add a line, durably; every rank has a file of its own, as appending is not atomic on every shared file system."""
    sealed = line.segment or line.results
    assert sealed is not None
    folder = manifest_folder(root, sealed.experiment_id)
    make_folder(folder)
    name = f"{MANY}{SUFFIX}" if rank is None else f"{MANY}-{rank}{SUFFIX}"
    fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        content = (b"\n" if torn else b"") + encoded(line)
        while content:
            # a disk that is nearly full takes what fits
            content = content[os.write(fd, content) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def are_there(root: Path, files: Sequence[SealedFile]) -> bool:
    """Whether every file lies where the manifest says, with as many bytes."""
    return all(_size(root / file.path) == file.bytes for file in files)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
