"""Recovery: everything of a damaged segment that verifies, in a new segment; the old file stays as it is."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llem_events.errors import CorruptError, LogWriteError, RecoveryRefusedError, SegmentExistsError
from llem_events.files import Files, OsFiles
from llem_events.format import SEGMENT_ID_BYTES, Seal
from llem_events.inspection import Survey, survey
from llem_events.reader import SegmentReader
from llem_events.writer import SegmentWriter

DEFAULT_LIMIT_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Recovery:
    """What was kept in `target`, and the survey of the original, whose `damages` are what was cut."""

    original: Survey
    target: Path
    segment_id: bytes
    kept: Seal


def recover(
    path: Path, target: Path, *, limit_bytes: int | None = DEFAULT_LIMIT_BYTES, files: Files | None = None
) -> Recovery:
    """Copy the blocks that verify to `target`, under a new segment id, chained anew and sealed; its header counts what was skipped.

    The target appears only once it is whole. Event numbers close up where blocks are missing. Raises
    RecoveryRefusedError where more than `limit_bytes` would be lost (None: no limit) or the header is lost, SegmentExistsError,
    LogWriteError.
    """
    original = survey(path)
    _check_worth(original, limit_bytes)
    files = files or OsFiles()
    with publishing(target, files) as temporary:
        segment_id, kept = _copy(original, temporary, files)
    return Recovery(original, target, segment_id, kept)


@contextlib.contextmanager
def publishing(target: Path, files: Files) -> Iterator[Path]:
    """A path that becomes `target` once the body has ended well, and is gone otherwise. Raises SegmentExistsError, LogWriteError."""
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        yield temporary
        _publish(temporary, target, files)
    finally:
        # Gone after the rename, and never there where it could not be made.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _check_worth(original: Survey, limit_bytes: int | None) -> None:
    if original.header is None:
        raise RecoveryRefusedError(
            f"segment {original.path}: its header is lost, and without the segment's id no block can be verified"
        )
    if limit_bytes is not None and original.lost_bytes > limit_bytes:
        raise RecoveryRefusedError(
            f"segment {original.path}: {original.lost_bytes} bytes would be lost, expected at most {limit_bytes}"
        )


def _copy(original: Survey, temporary: Path, files: Files) -> tuple[bytes, Seal]:
    assert original.header is not None
    segment_id = os.urandom(SEGMENT_ID_BYTES)
    header = msgspec.structs.replace(
        original.header,
        segment_id=segment_id,
        recovered_from=original.header.segment_id,
        skipped_bytes=original.header.skipped_bytes + original.lost_bytes,
        skipped_blocks=original.header.skipped_blocks + original.lost_blocks,
        skipped_events=original.header.skipped_events + original.lost_events,
    )
    writer = SegmentWriter(temporary, header, sync="close", files=files)
    try:
        with SegmentReader(original.path, salvage_damage=True) as reader:
            for block in reader.blocks():
                try:
                    reader.events(block)
                except CorruptError:
                    continue
                writer.write_payload(
                    block.payload,
                    event_count=block.header.event_count,
                    raw_length=block.header.raw_length,
                )
        return segment_id, writer.seal()
    finally:
        writer.close()


def _publish(temporary: Path, target: Path, files: Files) -> None:
    try:
        files.rename(temporary, target)
        files.sync_directory(target.parent)
    except FileExistsError as error:
        raise SegmentExistsError(f"segment {target}: a segment is never written twice") from error
    except OSError as error:
        raise LogWriteError(f"segment {target}: {error.strerror or error}") from error
