"""The supervisor's own segment, and where its experiment's folder is by now: neither may end what can go on."""

import os
import time
from pathlib import Path
from types import TracebackType

from llem_events import BackgroundWriter, LogWriteError
from llem_events.events import Event


class Diary:
    """Writes until the disk refuses it; `failure` then says why."""

    def __init__(self, log: BackgroundWriter) -> None:
        self._log = log
        self.failure: str | None = None

    def write(self, event: Event) -> None:
        """Append a fact, dated now; they are few, and each goes to the disk at once."""
        try:
            self._log.append(event, at_ns=time.monotonic_ns())
            self._log.hurry()
        except LogWriteError as error:
            self.failure = self.failure or str(error)

    def seal(self) -> None:
        """End it as a whole segment, where that can be done."""
        try:
            self._log.seal()
        except LogWriteError as error:
            self.failure = self.failure or str(error)


class Whereabouts:
    """A folder held open, so that it is found again wherever it is moved, and known to be gone once it is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def __enter__(self) -> "Whereabouts":
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # A file system that counts no links cannot say that a folder is gone.
        self._counts_links = os.fstat(self._fd).st_nlink > 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def is_gone(self) -> bool:
        """Whether the folder was removed."""
        return self._counts_links and os.fstat(self._fd).st_nlink == 0

    def path(self) -> Path:
        """Where the folder is now; its old place where the system does not say."""
        try:
            if self._folder.samefile(f"/dev/fd/{self._fd}"):
                return self._folder
        except OSError:
            pass
        try:
            return Path(f"/proc/self/fd/{self._fd}").readlink()
        except OSError:
            return self._folder
