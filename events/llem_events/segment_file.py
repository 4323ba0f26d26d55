"""Opening a segment for reading: no links, no pipes, and errors that are ours."""

import errno
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from llem_events.errors import SegmentReadError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AHEAD_BYTES = 2**20


class _SegmentFile(io.FileIO):
    """A file whose errors are ours, whoever reads it."""

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd)
        self._path = path

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise SegmentReadError(f"segment {self._path}: {error.strerror}") from error

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            raise SegmentReadError(f"segment {self._path}: {error.strerror}") from error


def open_segment_file(path: Path, *, read_ahead_bytes: int = _READ_AHEAD_BYTES) -> io.BufferedReader:
    """The file for reading; no link is followed, and nothing that could block, such as a pipe, is waited for.

    Raises SegmentReadError, as does whatever reads from it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        found = "a link, which is not followed" if error.errno == errno.ELOOP else error.strerror
        raise SegmentReadError(f"segment {path}: {found}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SegmentReadError(f"segment {path}: not a regular file")
    return io.BufferedReader(_SegmentFile(fd, path), read_ahead_bytes)
