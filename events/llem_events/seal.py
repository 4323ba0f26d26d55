"""The seal: totals and the last digest, written when a writer closes its segment in good order."""

import struct
from typing import NamedTuple

from llem_events import skippable
from llem_events.errors import CorruptError
from llem_events.format import DIGEST_BYTES, chain_digest

KIND = b"LLES"
FORMAT_VERSION = 1
_TOTALS = struct.Struct("<QQQQ")  # blocks, events, raw bytes, compressed bytes
SEAL_BYTES = skippable.PREFIX.size + _TOTALS.size + 2 * DIGEST_BYTES


class Seal(NamedTuple):
    """Totals of a segment; bytes are those of the payloads."""

    blocks: int
    events: int
    raw_bytes: int
    compressed_bytes: int
    last_digest: bytes


def pack(seal: Seal, segment_id: bytes) -> bytes:
    """The seal's frame."""
    totals = _TOTALS.pack(seal.blocks, seal.events, seal.raw_bytes, seal.compressed_bytes)
    digest = chain_digest(segment_id, seal.last_digest, totals, b"")
    return skippable.pack(KIND, FORMAT_VERSION, totals + seal.last_digest + digest)


def unpack(frame: bytes, segment_id: bytes, offset: int) -> Seal:
    """The seal of a complete frame. Raises CorruptError or NewerFormatError."""
    fields = skippable.fields_of(frame, offset, kind=KIND, newest=FORMAT_VERSION, what="seal")
    if len(frame) != SEAL_BYTES:
        raise CorruptError(f"seal: found {len(frame)} bytes, expected {SEAL_BYTES}", offset=offset)
    totals, last_digest, digest = (
        fields[: _TOTALS.size],
        fields[_TOTALS.size : -DIGEST_BYTES],
        fields[-DIGEST_BYTES:],
    )
    if chain_digest(segment_id, last_digest, totals, b"") != digest:
        raise CorruptError("digest of the seal does not fit its bytes", offset=offset)
    blocks, events, raw_bytes, compressed_bytes = _TOTALS.unpack(totals)
    return Seal(blocks, events, raw_bytes, compressed_bytes, last_digest)
