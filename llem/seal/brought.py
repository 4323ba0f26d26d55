"""Sealed Parquet of an address, brought into a cache of this machine: verified by its digests, the least recently used gone first.

The cache holds files by their SHA-256 alone. What a query reads are other names of them in a folder of its own, so that no other process can
take them from it; a file gets its name there, and then in the cache, when all of it has come and is what the manifest says.
"""

import fcntl
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from llem.errors import StoreError
from llem.projections.progress import Progress
from llem.projections.sealed import FOLDER, OF_EXPERIMENTS, OF_SEGMENTS, manifest_folder
from llem.seal.manifest import Manifest, manifest_of
from llem.seal.remote import MissingError, RemoteFolder, at_once
from llem.seal.segment import SealedFile, make_folder, sha256
from llem.store import is_id

MB = 10**6
LIMIT_BYTES = 10_000 * MB
LIMIT_VARIABLE = "LLEM_CACHE_LIMIT"
Scanned = Mapping[str, frozenset[str] | None]

_VIEW = ".query-"
# When a verified file was last written, as it is put down: whoever writes into it changes that.
_VERIFIED_NS = 10**9
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_HINT = "ask again where it is being sealed; else remove what is there of it, and run `llem seal` again"


class Wanted(NamedTuple):
    """What a query needs of an address."""

    files: Sequence[SealedFile]
    whole: Sequence[str]  # experiments with results
    in_part: Sequence[str]  # experiments without


def limit_bytes(written: str | None) -> int:
    """What the cache may hold: as an option or the environment says it. Raises StoreError."""
    text = written or os.environ.get(LIMIT_VARIABLE)
    if not text:
        return LIMIT_BYTES
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?([KMGT]?B?)", text.strip().upper(), re.ASCII)
    if match is None or match[2] not in _UNITS:
        raise StoreError("the limit of the cache", found=repr(text), expected="a size such as 500MB or 20GB")
    return int(float(match[1]) * _UNITS[match[2]])


def cache_folder() -> Path:
    """Where files are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llem" / "sealed"


def sealed_at(address: str) -> tuple[RemoteFolder, list[str]]:
    """The sealed folder that an address names, itself or that of a store, and its experiments. Raises StoreError."""
    missing = None
    for place in (address.rstrip("/"), f"{address.rstrip('/')}/{FOLDER}"):
        remote = RemoteFolder(place)
        try:
            names = remote.folders("manifests")
        except MissingError as error:
            missing = error.found
            continue
        found = [name.partition("=")[2] for name in names if name.startswith("experiment_id=")]
        if experiment_ids := [experiment_id for experiment_id in found if is_id(experiment_id)]:
            return remote, experiment_ids
    raise StoreError(
        f"nothing is sealed at {address}", found=missing, hint=f"run `llem seal --to {address}` first"
    )


def wanted(remote: RemoteFolder, experiment_ids: Sequence[str], scanned: Scanned) -> Wanted:
    """The files of the experiments that each table is asked for, by their manifests. Raises StoreError."""
    chosen = [each for each in experiment_ids if any(_has(ids, each) for ids in scanned.values())]
    manifests = dict(at_once(lambda experiment_id: _manifest(remote, experiment_id), chosen))
    files = [
        _checked(file, experiment_id, remote)
        for experiment_id, manifest in manifests.items()
        for file in manifest.files
        if file.table in scanned and _has(scanned[file.table], experiment_id)
    ]
    whole = [experiment_id for experiment_id, manifest in manifests.items() if manifest.results is not None]
    return Wanted(files, whole, sorted(manifests.keys() - set(whole)))


def _has(experiment_ids: frozenset[str] | None, experiment_id: str) -> bool:
    return experiment_ids is None or experiment_id in experiment_ids


def _manifest(remote: RemoteFolder, experiment_id: str) -> Manifest:
    folder = str(manifest_folder(Path(), experiment_id))
    paths = remote.sizes(folder)
    if not paths:
        raise StoreError(f"{remote.address}/{folder} is not there any more", hint=_HINT)
    return manifest_of((Path(path).name, remote.read(path)) for path in paths)


def _checked(file: SealedFile, experiment_id: str, remote: RemoteFolder) -> SealedFile:
    """A file that a manifest may name: one of its experiment. Raises StoreError."""
    host = "host=[^/]+/" if file.table in OF_SEGMENTS else ""
    path = rf"table={file.table}/experiment_id={re.escape(experiment_id)}/{host}[\w.-]+\.parquet"
    known = file.table in (*OF_SEGMENTS, *OF_EXPERIMENTS)
    if not (
        known
        and re.fullmatch(path, file.path, re.ASCII)
        and _DIGEST.fullmatch(file.sha256)
        and file.bytes >= 0
    ):
        raise StoreError(
            f"the manifest of experiment {experiment_id} at {remote.address}",
            found=f"a file {file.path!r}",
            expected=f"files of table {file.table} of this experiment",
        )
    return file


class Cache:
    """The files of one cache folder, for one query."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes

    @contextmanager
    def view(self) -> Iterator[Path]:
        """A folder beside the files that nobody else touches for as long as it is used. Raises StoreError."""
        try:
            make_folder(self._folder)
            with _locked(self._folder, fcntl.LOCK_EX):
                self._remove_leftovers()
                view = Path(tempfile.mkdtemp(prefix=_VIEW, dir=self._folder))
                fd = _lock(view, fcntl.LOCK_EX)
        except OSError as error:
            raise StoreError(f"the cache {self._folder} cannot be written", found=error.strerror) from error
        try:
            yield view
        finally:
            os.close(fd)
            shutil.rmtree(view, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Of queries that were killed."""
        for view in self._folder.glob(f"{_VIEW}*"):
            try:
                fd = _lock(view, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            shutil.rmtree(view, ignore_errors=True)
            os.close(fd)

    def take(self, files: Sequence[SealedFile], view: Path) -> list[SealedFile]:
        """Names in the view for those that are here; returns the others."""
        return [file for file in files if not self._take(file, view / file.path)]

    def _take(self, file: SealedFile, target: Path) -> bool:
        kept = self._folder / file.sha256
        make_folder(target.parent)
        try:
            os.link(kept, target)
        except FileNotFoundError:
            return False
        if _is_verified(target, file):
            os.utime(target, ns=(time.time_ns(), _VERIFIED_NS))
            return True
        target.unlink()
        kept.unlink(missing_ok=True)
        return False

    def make_room(self, files: Sequence[SealedFile], missing: Sequence[SealedFile]) -> None:
        """For what is to come, of what was not used for longest. Raises StoreError where a query needs more than there may be."""
        sizes = {file.sha256: file.bytes for file in files}
        if sum(sizes.values()) > self._limit_bytes:
            raise StoreError(
                "the cache is too small for what is asked",
                found=f"{sum(sizes.values()) / MB:,.3f} MB",
                expected=f"at most {self._limit_bytes / MB:,.3f} MB",
                hint=f"ask for fewer experiments, or allow more with --cache-limit or {LIMIT_VARIABLE}",
            )
        used = {path: path.stat() for path in self._folder.iterdir() if _DIGEST.fullmatch(path.name)}
        coming = sum({file.sha256: file.bytes for file in missing}.values())
        over = sum(stat.st_size for stat in used.values()) + coming - self._limit_bytes
        for path, stat in sorted(used.items(), key=lambda kept: kept[1].st_atime_ns):
            if over <= 0:
                break
            if path.name not in sizes:
                path.unlink(missing_ok=True)
                over -= stat.st_size

    def bring(
        self, file: SealedFile, view: Path, remote: RemoteFolder, on_bytes: Callable[[int], None]
    ) -> None:
        """One file from the address, which gets its names when it is known to be whole. Raises StoreError."""
        target = view / file.path
        coming = target.with_name(f".{target.name}")
        try:
            make_folder(target.parent)
            digest = remote.fetch(file.path, coming, most_bytes=file.bytes, on_bytes=on_bytes)
            self._check(file, coming, digest, remote)
            _make_durable(coming)
            os.utime(coming, ns=(time.time_ns(), _VERIFIED_NS))
            target.hardlink_to(coming)
            coming.replace(self._folder / file.sha256)
        except MissingError as error:
            raise StoreError(
                error.what, found="nothing, although the manifest names it", hint=_HINT
            ) from error
        except OSError as error:
            raise StoreError(f"the cache {self._folder} cannot be written", found=error.strerror) from error

    def _check(self, file: SealedFile, coming: Path, digest: str, remote: RemoteFolder) -> None:
        size = coming.stat().st_size
        if (size, digest) != (file.bytes, file.sha256):
            found = f"{size} bytes" if size != file.bytes else f"SHA-256 {digest[:16]}..."
            expected = f"{file.bytes} bytes" if size != file.bytes else f"{file.sha256[:16]}..."
            raise StoreError(
                f"{remote.address}/{file.path} is not what its manifest says",
                found=found if size <= file.bytes else "more bytes",
                expected=expected,
                hint=_HINT,
            )


@contextmanager
def brought(
    remote: RemoteFolder,
    asked: Wanted,
    *,
    limit_bytes: int,
    notify: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> Iterator[Path]:
    """A folder with those files, as long as the body runs. Raises StoreError."""
    cache = Cache(cache_folder(), limit_bytes=limit_bytes)
    with cache.view() as view:
        for experiment_id in asked.whole:
            # it is sealed, whether or not its results are asked for
            make_folder(view / "table=experiments" / f"experiment_id={experiment_id}")
        missing = cache.take(asked.files, view)
        cache.make_room(asked.files, missing)
        if missing:
            notify(_told(remote, asked.files, missing))
        course = _Course(sum(file.bytes for file in missing), on_progress)
        for _ in at_once(lambda file: cache.bring(file, view, remote, course.add), missing):
            pass
        yield view


def _told(remote: RemoteFolder, files: Sequence[SealedFile], missing: Sequence[SealedFile]) -> str:
    """How much is to come, before it does."""
    coming, all_of_it = (sum(file.bytes for file in some) / MB for some in (missing, files))
    plural = "" if len(missing) == 1 else "s"
    return f"llem: bringing {len(missing)} file{plural}, {coming:,.3f} of {all_of_it:,.3f} MB, from {remote.address}"


class _Course:
    """How much has come, told by many threads."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None]) -> None:
        self._done, self._total, self._tell = 0, total, on_progress
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._done += count
            self._tell(Progress(work="bringing Parquet", done=self._done, total=self._total, unit="bytes"))


def _is_verified(path: Path, file: SealedFile) -> bool:
    """By its size, and by its digest where somebody has written into it since it was verified."""
    stat = path.stat()
    if stat.st_size != file.bytes:
        return False
    return stat.st_mtime_ns == _VERIFIED_NS or sha256(path) == file.sha256


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    fd = _lock(folder, how)
    try:
        yield
    finally:
        os.close(fd)


def _lock(folder: Path, how: int) -> int:
    """A descriptor that holds the lock until it is closed. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
    except OSError:
        os.close(fd)
        raise
    return fd
