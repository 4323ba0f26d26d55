"""One writer of projections at a time: a kernel lock, which a crash releases."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from llem.store import Store

POLL_S = 0.05


@contextmanager
def writer_lock(store: Store, *, wait_s: float) -> Iterator[bool]:
    """Hold the store's lock around the body; yields False where another process kept it for `wait_s`."""
    fd = os.open(store.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _lock(fd, time.monotonic() + wait_s)
    finally:
        os.close(fd)


def _lock(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True
