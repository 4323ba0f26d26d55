"""Tests of delays of our own on a machine that may stand still for seconds: one of several rounds has to be in time.

    @best_of_rounds
    def test_...(tmp_path):
        ...
        with delays():
            assert took_s < 0.5

What is asserted outside of `delays` holds in every round. Where a machine is busy for longer than all rounds last, a typical delay is
compared with that of a thread that only sleeps: `with lateness() as late_ns`.
"""

import functools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Between them longer and longer, because all of one second's rounds may lie where the machine stands still.
PAUSES_S = (0.5, 1.0, 4.0, 16.0)
SLEEP_NS = 5_000_000


class LateError(AssertionError):
    """A delay that was not as it should be, in one round."""


@contextmanager
def delays(*also: type[Exception]) -> Iterator[None]:
    """What is asserted within depends on how punctual the machine is; `also` are errors that say that something took too long."""
    try:
        yield
    except (AssertionError, *also) as error:
        raise LateError(*error.args) from error


@contextmanager
def lateness() -> Iterator[list[int]]:
    """How late, in ns, a thread wakes again and again that does nothing else: what this machine makes of anybody's delays meanwhile."""
    late_ns: list[int] = []
    is_over = threading.Event()

    def sleep() -> None:
        while not is_over.is_set():
            due_ns = time.monotonic_ns() + SLEEP_NS
            time.sleep(SLEEP_NS / 1e9)
            late_ns.append(time.monotonic_ns() - due_ns)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    try:
        yield late_ns
    finally:
        is_over.set()
        sleeper.join()


def best_of_rounds(test: Callable[..., None]) -> Callable[..., None]:
    """The test in up to five rounds, until the delays of one are as they should be; each begins with an empty folder."""

    @functools.wraps(test)
    def in_rounds(**fixtures: Any) -> None:
        for pause_s in PAUSES_S:
            try:
                return test(**fixtures)
            except LateError as late:
                print(f"once more in {pause_s} s: {late}")
                time.sleep(pause_s)
                _empty(fixtures)
        return test(**fixtures)

    return in_rounds


def _empty(fixtures: dict[str, Any]) -> None:
    folder: Path | None = fixtures.get("tmp_path", fixtures.get("store"))
    for entry in folder.iterdir() if folder and folder.exists() else ():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
