"""Loaded by every interpreter whose PYTHONPATH has this folder: keeps what functions of llem hand to each other.

For each pair of modules, the numbers, texts and bytes in what is handed down by a call and in what comes back from it.
"""

import atexit
import contextlib
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

FOLDER = os.environ.get("FIGURE_PATH")
MOST = 3000  # of a list; samples and requests are not what is looked for
_GENERATOR = 0x20
Handed = tuple[str, str | None, str]  # call or return, the caller's module, the other's
handed: dict[Handed, set[Any]] = {}


def _leaves(thing: Any, depth: int = 8) -> Iterator[Any]:
    """What stands in a record, a list or a table, down to some depth."""
    if isinstance(thing, bool | CodeType | type) or depth == 0:
        return
    if isinstance(thing, int | float | str | bytes):
        yield thing
    elif isinstance(thing, bytearray | memoryview):
        yield bytes(thing)
    elif isinstance(thing, dict | list | tuple | set | frozenset):
        parts = list(thing.values() if isinstance(thing, dict) else thing)
        for part in parts[:MOST]:
            yield from _leaves(part, depth - 1)
    elif type(thing).__name__ == "Raw":
        yield bytes(thing)
    else:
        names = getattr(thing, "__struct_fields__", None) or getattr(thing, "__dataclass_fields__", ())
        for name in names:
            yield from _leaves(getattr(thing, name, None), depth - 1)


def _module(frame: FrameType | None) -> str | None:
    """The nearest module of the two packages."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "__main__":
            name = getattr(frame.f_globals.get("__spec__"), "name", name)
        if name.partition(".")[0] in ("llem", "llem_events"):
            return str(name)
        frame = frame.f_back
    return None


def _watch(frame: FrameType, event: str, returned: Any) -> None:
    if event not in ("call", "return"):
        return
    # A generator is entered by whoever asks for its next value, who hands it nothing.
    if event == "call" and frame.f_code.co_flags & _GENERATOR:
        return
    name, caller = _module(frame), _module(frame.f_back)
    if name is None or name == caller or name != frame.f_globals.get("__name__", name):
        return
    arguments = [value for key, value in frame.f_locals.items() if key != "self"]
    found = _leaves(returned if event == "return" else arguments)
    with contextlib.suppress(Exception):
        handed.setdefault((event, caller, name), set()).update(found)


def _write() -> None:
    sys.setprofile(None)
    with open(f"{FOLDER}/{os.getpid()}.pickle", "wb") as file:
        pickle.dump(handed, file)


if FOLDER:
    atexit.register(_write)
    threading.setprofile(_watch)
    sys.setprofile(_watch)
