"""Where an export goes: a file that appears whole or not at all, and never takes another's place unasked."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from llem.errors import ExportError, is_text
from llem.store import SEGMENT_SUFFIX, Store
from llem_events.format import MAGIC_BYTES

STDOUT_NAMES = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def is_stdout(path: Path) -> bool:
    """Whether the name stands for standard output."""
    return str(path) in STDOUT_NAMES


def check(path: Path, *, force: bool, hint: str = "--force replaces it") -> None:
    """Raises ExportError unless `path` can be written; asked before any work is done for it."""
    try:
        _check(path.resolve(), force=force, hint=hint)
    except OSError as error:
        raise ExportError(f"{path} cannot be written", found=error.strerror) from error


def _check(path: Path, *, force: bool, hint: str) -> None:
    if not is_text(str(path)):
        raise ExportError("the file's path is not UTF-8", found=ascii(str(path)))
    if store := Store.around(path):
        raise ExportError(f"{path} is inside the store {store.path}", expected="a file outside of any store")
    if _is_segment(path):
        raise ExportError(f"{path} is a segment of a log, which is never replaced", expected="another name")
    if path.exists() and not path.is_file():
        raise ExportError(f"{path} is not a file", expected="a file's name, or - for standard output")
    if path.exists() and not force:
        raise ExportError(f"{path} exists", hint=hint)
    if not path.parent.is_dir():
        raise ExportError(f"{path} cannot be written", found=f"no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ExportError(f"{path} cannot be written", found=f"no permission in {path.parent}")


def _is_segment(path: Path) -> bool:
    """Whether a file is one by its name or by what it begins with, wherever it lies."""
    if path.name.endswith(SEGMENT_SUFFIX):
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC_BYTES)) == MAGIC_BYTES


@contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[Path]:
    """A name in the same folder to write to; it takes the place of `path` when the block ends well."""
    check(path, force=force)
    path = path.resolve()
    temporary = path.with_name(f".llem-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        check(path, force=force)
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written", found=error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def text_file(path: Path, *, force: bool) -> Iterator[TextIO]:
    """The same, opened for text; its bytes are on the disk before it gets its name."""
    with replacing(path, force=force) as temporary, open(temporary, "x", encoding="utf-8", newline="") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())
