"""The root digest of an experiment: one number that no later edit of any of its segments leaves the same."""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llem_events.damage import Verdict
from llem_events.errors import CorruptError
from llem_events.reader import SegmentReader

_LEAF = struct.Struct("<16sQQ32sB")  # segment id, blocks, events, last digest, sealed


@dataclass(frozen=True, order=True)
class SegmentDigest:
    """The last digest of one segment's chain, and the counts that it stands for."""

    segment_id: bytes
    path: Path
    blocks: int
    events: int
    last_digest: bytes
    is_sealed: bool


def segment_digest(path: Path) -> SegmentDigest:
    """Read and verify one segment. Raises CorruptError, SegmentReadError, NewerFormatError."""
    with SegmentReader(path) as reader:
        for _ in reader.blocks():
            pass
        at = reader.position
        segment_id = reader.header.segment_id if reader.header else b""
        return SegmentDigest(
            segment_id, path, at.blocks, at.events, at.digest, reader.verdict is Verdict.CLEAN
        )


def root_digest(segments: Iterable[SegmentDigest]) -> bytes:
    """SHA-256 over the segments in order of their ids; file names do not count, nor files torn before their first byte of content.

    Raises CorruptError where two files hold the same segment.
    """
    hasher = hashlib.sha256(b"LLED\x01")
    previous = b""
    for segment in sorted(segments):
        if not segment.segment_id:
            continue
        if segment.segment_id == previous:
            raise CorruptError(
                f"segment {segment.segment_id.hex()} is there twice, again as {segment.path}", offset=0
            )
        previous = segment.segment_id
        hasher.update(
            _LEAF.pack(
                segment.segment_id, segment.blocks, segment.events, segment.last_digest, segment.is_sealed
            )
        )
    return hasher.digest()
