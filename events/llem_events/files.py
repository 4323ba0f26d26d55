"""The system calls on segments: a writer's, in one place, so that a test can record them or let them fail; and a reader's, who follows no link and waits for no pipe."""

import contextlib
import errno
import fcntl
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llem_events.errors import SegmentReadError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AHEAD_BYTES = 2**20


class Files(Protocol):
    """What a segment writer asks of the operating system; every method raises OSError."""

    def create(self, path: Path) -> int: ...
    def write(self, fd: int, chunk: memoryview) -> int: ...
    def sync(self, fd: int) -> None: ...
    def truncate(self, fd: int, length: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def sync_directory(self, path: Path) -> None: ...
    def reserve(self, directory: Path, length: int) -> int: ...
    def rename(self, source: Path, target: Path) -> None: ...


class OsFiles:
    """The operating system itself."""

    # A file system that counts no links says 0 of a new file already.
    _counts_links = True

    def create(self, path: Path) -> int:
        """A new file for appending, readable by its owner only, whatever the umask; never an existing one or a link.

        It is locked until its writer ends, however it ends, so that a reader can tell a writer at work from a killed one.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o600)
        try:
            os.fchmod(fd, 0o600)
        except OSError:
            os.close(fd)
            raise
        self._counts_links = os.fstat(fd).st_nlink > 0
        with contextlib.suppress(OSError):  # a file system without locks is no reason not to measure
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def write(self, fd: int, chunk: memoryview) -> int:
        """Write to a file that still has a name: what is written to a removed one is lost when it is closed."""
        if os.fstat(fd).st_nlink == 0 and self._counts_links:
            raise OSError(errno.ESTALE, "the file was removed")
        return os.write(fd, chunk)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def close(self, fd: int) -> None:
        os.close(fd)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def reserve(self, directory: Path, length: int) -> int:
        """Disk space that is given back when the descriptor is closed, by us or by the kernel."""
        name = directory / f".reserve-{os.getpid()}-{os.urandom(4).hex()}"
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            name.unlink()
            os.posix_fallocate(fd, 0, length)
        except OSError:
            os.close(fd)
            raise
        return fd

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name; FileExistsError where the name is taken."""
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        source.rename(target)


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
