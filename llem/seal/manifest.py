"""The manifest of an experiment: a line for every segment that was sealed, and one for its results, each with the digests of what was read and written."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from llem.projections.sealed import manifest_folder
from llem.seal.segment import SealedFile, SealedSegment, make_folder


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


def read_manifest(root: Path, experiment_id: str) -> Manifest:
    """Of all who sealed it. A line that a crash cut short says nothing."""
    segments: dict[str, SealedSegment] = {}
    results = None
    for path in sorted(manifest_folder(root, experiment_id).glob("_manifest*.jsonl")):
        for line in _lines(path):
            if line.segment is not None:
                segments[line.segment.file] = line.segment
            results = line.results or results
    return Manifest(segments=segments, results=results)


def _lines(path: Path) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    for written in path.read_bytes().splitlines():
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
    name = "_manifest.jsonl" if rank is None else f"_manifest-{rank}.jsonl"
    fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, (b"\n" if torn else b"") + msgspec.json.encode(line) + b"\n")
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
