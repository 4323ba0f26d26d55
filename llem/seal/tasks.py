"""One thing to seal, done in whichever process it is handed to: a segment, or the results of an experiment."""

import functools
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import duckdb
import msgspec

from llem.errors import LlemError
from llem.projections.checkpoint import SegmentFile
from llem.projections.containment import MisfitError
from llem.seal.manifest import Line
from llem.seal.places import bring
from llem.seal.remote import RemoteFolder, is_address
from llem.seal.results import NotSealedError, seal_results
from llem.seal.segment import Sealer
from llem.store import Store
from llem_events import CorruptError, LogError, NewerFormatError

Kind = Literal["damaged", "newer", "unreadable", "unfinished", "failed"]

_KINDS: dict[str, Kind] = {"running": "unfinished", "newer": "newer"}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sealed, and where to."""

    store: str
    root: str  # a folder or an address
    experiment_id: str
    file: str | None = None  # a segment's name; None for what the tables say of the experiment
    log_bytes: int = 0
    from_tables: bool = False

    @property
    def path(self) -> Path:
        """The segment, or the experiment's folder."""
        folder = Store(Path(self.store)).log_path / self.experiment_id
        return folder / self.file if self.file is not None else folder


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A line for the manifest, or why there is none."""

    task: Task
    line: Line | None = None
    kind: Kind | None = None
    reason: str | None = None


def perform(task: Task) -> Done:
    """Seal it; whatever a log brings about is told, and nothing of it is left."""
    try:
        return Done(task=task, line=_sealed(task))
    except NotSealedError as error:
        return Done(task=task, kind=_KINDS.get(error.status, "damaged"), reason=str(error))
    except (CorruptError, MisfitError) as error:
        return Done(task=task, kind="damaged", reason=str(error))
    except NewerFormatError as error:
        return Done(task=task, kind="newer", reason=str(error))
    except LogError as error:
        return Done(task=task, kind="unreadable", reason=str(error))
    except LlemError as error:
        return Done(task=task, kind="failed", reason=str(error))
    except (OSError, MemoryError, duckdb.Error) as error:
        return Done(task=task, kind="failed", reason=_in_words(error))


def _in_words(error: Exception) -> str:
    """Of what DuckDB wraps in JSON, only its text."""
    wrapped = re.search(r"\{\"exception_type\".*\}", str(error))
    with suppress(msgspec.MsgspecError, KeyError):
        if wrapped is not None:
            return msgspec.json.decode(wrapped[0], type=dict[str, str])["exception_message"]
    return f"{type(error).__name__}: {error}"


def _sealed(task: Task) -> Line:
    if not is_address(task.root):
        return _sealed_into(Path(task.root), task)
    with tempfile.TemporaryDirectory(prefix="llem-seal-") as scratch:
        line = _sealed_into(Path(scratch), task)
        bring(Path(scratch), line, _remote(task.root))
    return line


def _sealed_into(root: Path, task: Task) -> Line:
    store = Store(Path(task.store))
    if task.file is None:
        return Line(results=seal_results(root, store, task.experiment_id, from_tables=task.from_tables))
    file = SegmentFile(
        experiment_id=task.experiment_id, path=task.path, file_bytes=task.log_bytes, modified_ns=0
    )
    return Line(segment=_sealer().seal(file, root))


@functools.cache
def _sealer() -> Sealer:
    """That of this process."""
    return Sealer()


@functools.lru_cache(maxsize=1)
def _remote(address: str) -> RemoteFolder:
    """With the connections of this process."""
    return RemoteFolder(address)
