"""Segments by a hostile hand: every checksum and digest is right, and the contents are not what a writer would write."""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard

from llem_events.format import (
    BLOCK_HEADER_KIND,
    BLOCK_VERSION,
    chain_digest,
    header_digest,
    pack_header,
    pack_record,
)
from tests.log.segments import SEGMENT_ID, segment_header

MEBIBYTE = 2**20


def forged_block(
    payload: bytes,
    *,
    event_count: int,
    raw_length: int,
    previous: bytes,
    number: int = 0,
    first_event: int = 0,
) -> tuple[bytes, bytes]:
    """(digest, bytes) of a block that claims whatever is asked."""
    fields = struct.pack("<QQIII", number, first_event, event_count, len(payload), raw_length)
    digest = chain_digest(SEGMENT_ID, previous, fields, payload)
    frame = pack_record(BLOCK_HEADER_KIND, BLOCK_VERSION, fields + previous + digest)
    return digest, frame + payload


def forged_segment(path: Path, payload: bytes, *, event_count: int, raw_length: int) -> Path:
    """A segment of one such block."""
    frame = pack_header(segment_header())
    _, data = forged_block(
        payload, event_count=event_count, raw_length=raw_length, previous=header_digest(frame)
    )
    path.write_bytes(frame + data)
    return path


def forged_raw(path: Path, raw: bytes, *, event_count: int) -> Path:
    """A segment of one block with this raw payload, compressed as a writer would."""
    payload = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(raw)
    return forged_segment(path, payload, event_count=event_count, raw_length=len(raw))


def message(event_type: str, body: bytes, *, version: int = 1) -> bytes:
    """One event whose body is any bytes."""
    return b"\x94" + b"".join(map(msgspec.msgpack.encode, (event_type, version, 0))) + body


def large_binary(length: int) -> bytes:
    """A msgpack byte string of zeros."""
    return b"\xc6" + struct.pack(">I", length) + bytes(length)


def hostile_bodies() -> Iterator[tuple[str, str, bytes]]:
    """(name, event type, body) of bodies that are far larger in memory than on the disk, or that never end."""
    yield "empty_maps", "experiment_started", _plan(b"\xdd" + struct.pack(">I", 10**6) + b"\x80" * 10**6)
    yield "deep", "experiment_started", _plan(b"\x91" * 10**6 + b"\x90")
    yield "lying_list", "experiment_started", _plan(b"\xdd\xff\xff\xff\xff\x01")
    yield "lying_map", "warning_raised", b"\xdf\xff\xff\xff\xff\xa1a\x01"
    yield "bad_text", "warning_raised", b"\x82\xa4code\xa1\xff\xa4text\xa1a"
    yield "token_times", "requests_completed", _requests(2_700_000)
    yield "unknown_maps", "model_melted", b"\xdd" + struct.pack(">I", 10**7) + b"\x80" * 10**7
    yield "unknown_deep", "model_melted", b"\x91" * 10**7 + b"\x90"
    yield "wrong_types", "window_opened", b"\x81\xa4kind\x01"
    yield "no_map", "window_opened", b"\x01"
    yield "extension", "warning_raised", b"\x82\xa4code\xd4\x01\x00\xa4text\xa1a"
    for version in (1, 2):
        yield f"samples_{version}", "samples_taken", msgspec.msgpack.encode(_lying_samples())


def _plan(plan: bytes) -> bytes:
    return b"\x81\xa4plan\x81\xa1a" + plan


def _requests(times: int) -> bytes:
    request = dict.fromkeys(
        (
            *("request_id", "batch_index", "batch_size", "arrival_ns", "start_ns", "end_ns"),
            *("input_tokens", "output_tokens"),
        ),
        1,
    )
    encoded = msgspec.msgpack.encode({**request, "finish_reason": "eos"})
    body = bytes([encoded[0] + 1]) + encoded[1:] + msgspec.msgpack.encode("token_times_ns")
    body += b"\xdd" + struct.pack(">I", times) + b"\xcd\x7f\xff" * times
    return b"\x82\xa6window\xabmeasurement\xa8requests\x91" + body


def _lying_samples() -> dict[str, object]:
    first = {"columns": {"at_ns": bytes(7)}, "null_masks": {"power_mw": b""}}
    second = {"widths": bytes(12), "lines": bytes(288), "packed": bytes(3), "missing": {"at_ns": b"\xff"}}
    return {"meter": "m", "device_uuid": "d", "count": 2**62, **first, **second}


def hostile_segments(folder: Path) -> Iterator[Path]:
    """Zip bombs, lying counts and lengths, and every hostile body."""
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(256 * MEBIBYTE))
    yield forged_segment(folder / "bomb_honest", bomb, event_count=1, raw_length=2**28)
    yield forged_segment(folder / "bomb_lying", bomb, event_count=1, raw_length=100)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MEBIBYTE))
    yield forged_segment(folder / "bomb_unsized", unsized, event_count=1, raw_length=100)
    wide = b"\x28\xb5\x2f\xfd\xc4\xb0" + struct.pack("<Q", 100) + b"\x01\x00\x00"
    yield forged_segment(folder / "wide_window", wide, event_count=1, raw_length=100)
    yield forged_raw(
        folder / "largest", message("model_melted", large_binary(16 * MEBIBYTE - 40)), event_count=1
    )
    smallest = message("a", b"\xc0")
    yield forged_raw(folder / "many_events", smallest * 65_536, event_count=65_536)
    yield forged_raw(folder / "fewer_events", smallest * 10, event_count=9)
    yield forged_raw(folder / "more_events", smallest * 10, event_count=65_536)
    yield forged_raw(folder / "too_many_events", smallest * 10, event_count=2**32 - 1)
    yield forged_raw(folder / "no_events", b"", event_count=0)
    yield forged_raw(folder / "nested_events", b"\x91" * (16 * MEBIBYTE - 1) + b"\x90", event_count=1)
    for name, event_type, body in hostile_bodies():
        version = 2 if name.endswith("_2") else 1
        yield forged_raw(folder / name, message(event_type, body, version=version), event_count=1)
    yield _claims(folder / "claims")


def _claims(path: Path) -> Path:
    """Forty thousand block headers with valid CRCs, each of which claims the next 16 MiB as its payload."""
    fields = struct.pack("<QQIII", 0, 0, 1, 4 * MEBIBYTE, 100) + bytes(64)
    claim = pack_record(BLOCK_HEADER_KIND, BLOCK_VERSION, fields)
    path.write_bytes(pack_header(segment_header()) + claim * 80_000)
    return path
