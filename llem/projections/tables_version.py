"""Versions of the two kinds of tables: digests of the sources that make them."""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import llem
import llem_events

_LLEM, _EVENTS = Path(llem.__file__).parent, Path(llem_events.__file__).parent
_CODE = (".py", ".pyc", ".sql")  # .pyc where a package was installed without its sources
# All that makes rows of events, samples, requests and segments out of a log.
DECODING = {
    _EVENTS: "columns damage envelope errors events format reader replay texts upcast",
    _LLEM: "units",
    _LLEM / "projections": "arrow_stream bulk cells checkpoint ingest log_cells sample_pieces",
    _LLEM / "results": "throttling",
}
# Of these, everything else makes figures of those rows.
DERIVING = (_LLEM / "projections", _LLEM / "projections" / "derive", _LLEM / "results")
PLAN = {_LLEM: "plan"}  # its defaults are thresholds of the verdict


class TablesVersion(NamedTuple):
    """Digests of the code that tables were made by: no change of a formula can be forgotten."""

    log: str  # what the log says
    derived: str  # what it means


@functools.cache
def tables_version() -> TablesVersion:
    """That of this program: some 70 files are read in a millisecond."""
    decoding, plan = set(_named(DECODING)), set(_named(PLAN))
    deriving = {path for folder in DERIVING for path in _code(folder)} | plan
    return TablesVersion(log=_digest(decoding), derived=_digest(deriving - decoding))


def _named(modules: dict[Path, str]) -> Iterator[Path]:
    for folder, names in modules.items():
        yield from (path for path in _code(folder) if path.stem in names.split())


def _code(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in _CODE]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.parts[-2:]):
        digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()
