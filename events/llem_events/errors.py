"""Errors of the log; each message gives what was found, what was expected, and where.

LogError
├── SegmentExistsError    a segment is never opened for writing twice
├── LogWriteError         the disk refused; final for this segment
├── SegmentReadError      a file that cannot be opened or read
├── TooLargeError         an event or a header over its cap
├── RecoveryRefusedError  too much would be lost, or everything is
├── NewerFormatError      written by a later llem than this one
├── EventError            an event that does not fit its declared type
└── DamageError           bytes that do not verify
    ├── TornTailError     an unsealed segment that ends inside its last write
    └── CorruptError      anything else; reading refuses unless asked to salvage
"""


class LogError(Exception):
    """Base of every error that the log package raises for what it reads or writes."""


class SegmentExistsError(LogError):
    """A segment is never opened for writing twice."""


class LogWriteError(LogError):
    """The disk refused; final for this segment."""


class SegmentReadError(LogError):
    """A file that cannot be opened or read."""


class RecoveryRefusedError(LogError):
    """Too much would be lost, or everything is."""


class TooLargeError(LogError):
    """An event or a header over its cap."""


class NewerFormatError(LogError):
    """Written by a later llem than this one."""


class EventError(LogError):
    """An event that does not fit its declared type."""


class DamageError(LogError):
    """Bytes that do not verify, starting at `offset` of the file."""

    def __init__(self, text: str, *, offset: int) -> None:
        self.text, self.offset = text, offset
        super().__init__(f"{text} (at byte {offset})")


class TornTailError(DamageError):
    """An unsealed segment that ends inside its last write."""


class CorruptError(DamageError):
    """Damage that no crash of the writer explains."""
