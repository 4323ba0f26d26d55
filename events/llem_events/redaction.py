"""Redaction: a segment without a given text, as a new file; the old one stays as it is, and its digest is named in the new one."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llem_events.envelope import Envelope
from llem_events.errors import CorruptError, RecoveryRefusedError
from llem_events.events import ResultImported
from llem_events.files import Files, OsFiles
from llem_events.format import SEGMENT_ID_BYTES, Seal, SegmentHeader, compressor
from llem_events.reader import SegmentReader
from llem_events.recovery import publishing
from llem_events.secrets import MASK
from llem_events.writer import SegmentWriter

MIN_CHARACTERS = 4


@dataclass(frozen=True)
class Redaction:
    """How many events of `target` are not what they were."""

    original: Path
    original_digest: bytes
    target: Path
    kept: Seal
    changed_events: int


def redact(path: Path, target: Path, *, texts: Sequence[str], files: Files | None = None) -> Redaction:
    """Copy a segment to `target` with every occurrence of the texts replaced by `***`, chained anew and sealed.

    Blocks and event numbers stay. Raises RecoveryRefusedError for a text that is too short, is nowhere in the segment, or is in the
    experiment's id, CorruptError for a damaged segment, SegmentExistsError, LogWriteError.
    """
    forms = _forms(texts)
    files = files or OsFiles()
    with SegmentReader(path) as reader, publishing(target, files) as temporary:
        digest = _last_digest(path)
        writer = SegmentWriter(temporary, _header(reader, path, digest, texts), sync="close", files=files)
        try:
            changed = _copy(reader, writer, forms)
            kept = writer.seal()
        finally:
            writer.close()
        if not changed:
            raise RecoveryRefusedError(f"segment {path}: the text is in none of its {kept.events} events")
    return Redaction(path, digest, target, kept, changed)


def _forms(texts: Sequence[str]) -> list[str]:
    """The texts, the longest first, and how each stands inside a JSON document."""
    if not texts or any(len(text) < MIN_CHARACTERS for text in texts):
        raise RecoveryRefusedError(f"text to redact: expected at least {MIN_CHARACTERS} characters")
    forms = {form for text in texts for form in (text, *_escaped(text))}
    return sorted(forms, key=len, reverse=True)


def _escaped(text: str) -> Iterator[str]:
    for only_ascii in (True, False):
        form = json.dumps(text, ensure_ascii=only_ascii)[1:-1]
        yield form
        yield form.replace("/", "\\/")


def _last_digest(path: Path) -> bytes:
    """The digest of the last block of a segment of which every byte verifies. Raises CorruptError."""
    with SegmentReader(path) as reader:
        for block in reader.blocks():
            reader.events(block)
        return reader.position.digest


def _header(reader: SegmentReader, path: Path, digest: bytes, texts: Sequence[str]) -> SegmentHeader:
    if reader.header is None:
        raise RecoveryRefusedError(f"segment {path}: its header is lost")
    if any(text in reader.header.experiment_id for text in texts):
        raise RecoveryRefusedError(
            f"segment {path}: the text is in the experiment's id, which is its folder's name"
        )
    return msgspec.structs.replace(
        reader.header,
        segment_id=os.urandom(SEGMENT_ID_BYTES),
        recovered_from=reader.header.segment_id,
        redacted_digest=digest,
        host=_without(reader.header.host, texts),
    )


def _copy(reader: SegmentReader, writer: SegmentWriter, forms: Sequence[str]) -> int:
    """Write every block anew; returns how many events changed."""
    squeeze = compressor(writer.header.role)
    marks = [form.encode() for form in forms]
    changed_events = 0
    for block in reader.blocks():
        messages = []
        for envelope in reader.events(block):
            touched = any(mark in bytes(envelope.body) for mark in marks)
            redacted = _redacted(envelope, forms) if touched else envelope
            changed_events += redacted is not envelope
            messages.append(msgspec.msgpack.encode(redacted))
        raw = b"".join(messages)
        writer.write_payload(squeeze.compress(raw), event_count=len(messages), raw_length=len(raw))
    return changed_events


def _redacted(envelope: Envelope, forms: Sequence[str]) -> Envelope:
    """The event without the texts; itself where they only stood in numbers or samples."""
    try:
        before = msgspec.msgpack.decode(envelope.body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptError(f"{envelope.type} cannot be decoded: {error}", offset=0) from error
    after = _without(before, forms, and_bytes=envelope.type == ResultImported.TYPE)
    if after == before:
        return envelope
    return msgspec.structs.replace(envelope, body=msgspec.Raw(msgspec.msgpack.encode(after)))


def _without(part: Any, forms: Sequence[str], *, and_bytes: bool = False) -> Any:
    match part:
        case str():
            for form in forms:
                part = part.replace(form, MASK)
            return part
        case bytes() if and_bytes:
            for form in forms:
                part = part.replace(form.encode(), MASK.encode())
            return part
        case dict():
            return {
                _without(key, forms, and_bytes=and_bytes): _without(item, forms, and_bytes=and_bytes)
                for key, item in part.items()
            }
        case list():
            return [_without(item, forms, and_bytes=and_bytes) for item in part]
    return part
