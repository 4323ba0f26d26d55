"""A reader of segments written from events/FORMAT.md alone: the standard library, zstandard and msgpack, nothing of ours."""

import hashlib
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import zstandard

MAGIC = 0x184D2A5E
COLUMNS = (  # noqa: SIM905 -- one name a line would fill the page
    "at_ns energy_mj power_average_mw power_mw temperature_c gpu_utilisation_pct memory_utilisation_pct "
    "memory_used_bytes sm_clock_mhz memory_clock_mhz throttle_reasons power_limit_mw"
).split()


class DamagedError(Exception):
    """Bytes that do not verify."""


def read_segment(path: Path) -> dict[str, Any]:
    """Header, verdict and events; what follows the first damage is not read."""
    data = path.read_bytes()
    events: list[dict[str, Any]] = []
    header_fields, at = read_record(data, 0, b"LLEH")
    header = msgpack.unpackb(header_fields)
    chain = hashlib.sha256(data[:at]).digest()
    blocks, verdict = 0, "unclosed"
    try:
        while at < len(data) and data[at + 12 : at + 16] != b"LLES":
            fields, start = read_record(data, at, b"LLEB")
            number, first, count, length, raw_length = struct.unpack_from("<QQIII", fields)
            previous, digest, payload = fields[28:60], fields[60:92], data[start : start + length]
            if len(payload) < length:
                raise EOFError
            if hashlib.sha256(header["segment_id"] + previous + fields[:28] + payload).digest() != digest:
                raise DamagedError(f"digest of block {number}")
            if (number, first, previous) != (blocks, len(events), chain):
                raise DamagedError(f"place of block {number}")
            events += read_events(decompress(payload, raw_length), count, first)
            at, blocks, chain = start + length, blocks + 1, digest
        if at < len(data):
            check_seal(data, at, header["segment_id"], (blocks, len(events), chain))
            verdict = "clean"
    except EOFError:
        verdict = "torn"
    header = {"recovered_from": None, **plain(header)}  # may be missing
    return {"header": header, "verdict": verdict, "events": events}


def read_record(data: bytes, at: int, kind: bytes) -> tuple[bytes, int]:
    """(fields, end) of the record at `at`."""
    if len(data) < at + 20:
        raise EOFError
    magic, length, crc, found, version, echo = struct.unpack_from("<III4sHH", data, at)
    end = at + 8 + length
    if magic != MAGIC or length & 0xFFFF != echo or not 12 <= length <= 65_528:
        raise DamagedError(f"record at byte {at}")
    if len(data) < end:
        raise EOFError
    if zlib.crc32(data[at + 12 : end], zlib.crc32(data[at : at + 8])) != crc or (found, version) != (kind, 1):
        raise DamagedError(f"record at byte {at}")
    return data[at + 20 : end], end


def check_seal(data: bytes, at: int, segment_id: bytes, expected: tuple[int, int, bytes]) -> None:
    """Raises DamagedError unless the seal fits what stands before it and ends the file."""
    fields, end = read_record(data, at, b"LLES")
    blocks, events = struct.unpack_from("<QQ", fields)
    digest = hashlib.sha256(segment_id + fields[32:64] + fields[:32]).digest()
    if (blocks, events, fields[32:64]) != expected or digest != fields[64:] or end != len(data):
        raise DamagedError(f"seal at byte {at}")


def decompress(payload: bytes, raw_length: int) -> bytes:
    """The raw events, if the frame declares their length and a modest window."""
    declared = zstandard.get_frame_parameters(payload)
    if declared.content_size != raw_length or raw_length > 2**24 or declared.window_size > 2**23:
        raise DamagedError("zstd frame")
    return zstandard.ZstdDecompressor().decompress(payload)


def read_events(raw: bytes, count: int, first: int) -> Iterator[dict[str, Any]]:
    """The messages of a payload as rows."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(raw) or 1, strict_map_key=False)
    unpacker.feed(raw)
    number = first
    for number, (event_type, version, at_ns, body) in enumerate(unpacker, first + 1):
        if event_type == "samples_taken":
            samples = (samples_of_differences if version == 1 else samples_in_planes)(body)
            body = {"meter": body["meter"], "device_uuid": body["device_uuid"], "samples": samples}
        row = {"number": number - 1, "type": event_type, "version": version}
        yield {**row, "at_ns": at_ns, "body": plain(body)}
    if number - first != count:
        raise DamagedError("event count")


def samples_of_differences(body: dict[str, Any]) -> dict[str, list[int | None]]:
    """Columns of samples_taken version 1."""
    samples = {}
    for name in COLUMNS:
        if name in body["columns"]:
            differences = struct.unpack(f"<{body['count']}q", body["columns"][name])
            values = [signed(value) for value in itertools.accumulate(differences)]
            samples[name] = with_gaps(values, body.get("null_masks", {}).get(name))
    return samples


def samples_in_planes(body: dict[str, Any]) -> dict[str, list[int | None]]:
    """Columns of samples_taken version 2."""
    samples, count, at, size = {}, body["count"], 0, (body["count"] + 7) // 8
    for column, (name, used) in enumerate(zip(COLUMNS, body["used"], strict=False)):
        numbers = [struct.unpack_from("<q", body["least"], 8 * column)[0]] * count
        for place in (place for place in range(8) if used >> place & 1):
            plane = body["planes"][at : at + count]
            numbers = [number + (byte << 8 * place) for number, byte in zip(numbers, plane, strict=True)]
            at += count
        if column < 3:
            first = struct.unpack_from("<q", body["first"], 8 * column)[0]
            numbers = list(itertools.accumulate(numbers[1:], initial=first))
        mask = body.get("missing", b"")[column * size : column * size + size]
        values = with_gaps([signed(number) for number in numbers], mask)
        if values.count(None) < count:
            samples[name] = values
    return samples


def signed(value: int) -> int:
    """The value modulo 2^64, read as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def with_gaps(values: list[int], mask: bytes | None) -> list[int | None]:
    """None where the mask, most significant bit first, has a one."""
    bits = mask or bytes(len(values))
    return [None if bits[place // 8] >> 7 - place % 8 & 1 else value for place, value in enumerate(values)]


def plain(found: Any) -> Any:
    """The same with byte strings as {"hex": ...}."""
    if isinstance(found, dict):
        return {key: plain(item) for key, item in found.items()}
    if isinstance(found, list):
        return [plain(item) for item in found]
    return {"hex": found.hex()} if isinstance(found, bytes) else found
