"""Where is sealed into: a folder of this machine, or an address."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from llem.errors import StoreError, folder_reason
from llem.projections.sealed import OF_EXPERIMENTS, OF_SEGMENTS, manifest_folder
from llem.seal.manifest import (
    MANY,
    Line,
    Manifest,
    append,
    are_there,
    encoded,
    file_name,
    manifest_of,
    read_manifest,
)
from llem.seal.remote import RemoteFolder, at_once, is_address
from llem.seal.segment import SealedFile, SealedSegment, make_folder
from llem.store import Store

_TOP = Path()


class Place(Protocol):
    """What sealing asks of where it seals into."""

    @property
    def named(self) -> str:
        """As tasks name it, and as they open it."""

    def begin(self, experiment_ids: Sequence[str]) -> None:
        """Look what is there of these. Raises StoreError."""

    def manifest(self, experiment_id: str) -> Manifest:
        """What is said of an experiment."""

    def has(self, files: Sequence[SealedFile]) -> bool:
        """Whether all of them are there, with as many bytes."""

    def add(self, line: Line, *, rank: int | None) -> None:
        """A task is done. Raises StoreError."""

    def remove(self, sealed: SealedSegment) -> None:
        """What was sealed of a segment."""

    def remove_experiment(self, experiment_id: str) -> None:
        """All that was sealed of an experiment."""


@contextmanager
def opened(root: Path | str, store: Store, *, is_share: bool) -> Iterator[Place]:
    """The place of a folder or an address, for as long as is sealed. Raises StoreError."""
    if isinstance(root, str) and is_address(root):
        remote = RemoteFolder(root)
        remote.check_writable()
        if (local := remote.local()) is not None:
            _check_beside(local, store)
        yield AddressPlace(remote)
        return
    root = Path(root)
    _check_beside(root, store)
    try:
        make_folder(root)
    except OSError as error:
        raise _not_written(root, error) from error
    with _held(root, is_share=is_share):
        yield FolderPlace(root.absolute())


def _not_written(root: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{root} cannot be written",
        found=folder_reason(error),
        expected="a folder to seal into",
        hint="--to names another",
    )


def _check_beside(root: Path, store: Store) -> None:
    """Folders of Parquet within the log would look like experiments, and elsewhere like studies or calibrations. Raises StoreError."""
    for place in (store.log_path, store.studies_path, store.settings_path, store.calibrations_path):
        if root.resolve().is_relative_to(place.resolve()):
            raise StoreError(f"{root}", found=f"a folder of {place}", expected="one beside it to seal into")


@contextmanager
def _held(root: Path, *, is_share: bool) -> Iterator[None]:
    """The folder is this process's while it seals, or that of all who seal a share: two who wrote the same file would take it from each other.

    A file system without locks is sealed into all the same. Raises StoreError.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if is_share else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreError(
            f"{root}", found="another `llem seal` at work", hint="seal again when it has ended"
        ) from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(fd)


class FolderPlace:
    """A folder, into which tasks write themselves."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def named(self) -> str:
        """Its path."""
        return str(self._root)

    def begin(self, experiment_ids: Sequence[str]) -> None:
        """Each file is looked at when it is asked for."""

    def manifest(self, experiment_id: str) -> Manifest:
        """Read anew."""
        return read_manifest(self._root, experiment_id)

    def has(self, files: Sequence[SealedFile]) -> bool:
        """By looking at them."""
        return are_there(self._root, files)

    def add(self, line: Line, *, rank: int | None) -> None:
        """Durably, in this rank's file."""
        try:
            append(self._root, line, rank=rank)
        except OSError as error:
            raise _not_written(self._root, error) from error

    def remove(self, sealed: SealedSegment) -> None:
        """Its line stays, and says nothing without them."""
        for file in sealed.files:
            (self._root / file.path).unlink(missing_ok=True)

    def remove_experiment(self, experiment_id: str) -> None:
        """Every table's folder of it."""
        for table in (*OF_SEGMENTS, *OF_EXPERIMENTS):
            shutil.rmtree(
                self._root / f"table={table}" / f"experiment_id={experiment_id}", ignore_errors=True
            )


class AddressPlace:
    """A folder at an address, to which tasks bring their files, and then the line of the manifest that names them."""

    def __init__(self, remote: RemoteFolder) -> None:
        self._remote = remote
        self._sizes: dict[str, int] = {}
        self._lines: dict[
            str, dict[str, bytes]
        ] = {}  # of each experiment, by the names of its manifest's files

    @property
    def named(self) -> str:
        """Its address."""
        return self._remote.address

    def begin(self, experiment_ids: Sequence[str]) -> None:
        """One listing of all that is there, and the manifests of these experiments."""
        self._sizes = self._remote.sizes()
        folders = {
            str(manifest_folder(_TOP, experiment_id)): experiment_id for experiment_id in experiment_ids
        }
        wanted = [path for path in self._sizes if str(Path(path).parent) in folders]
        for path, content in at_once(self._remote.read, wanted):
            experiment_id = folders[str(Path(path).parent)]
            self._lines.setdefault(experiment_id, {})[Path(path).name] = content

    def manifest(self, experiment_id: str) -> Manifest:
        """As it was when sealing began."""
        return manifest_of(self._lines.get(experiment_id, {}).items())

    def has(self, files: Sequence[SealedFile]) -> bool:
        """By the listing."""
        return all(self._sizes.get(file.path) == file.bytes for file in files)

    def add(self, line: Line, *, rank: int | None) -> None:
        """The task has put the line there; files of results that it no longer names go."""
        if line.results is not None and (before := self.manifest(line.results.experiment_id).results):
            now = {file.path for file in line.results.files}
            self._remote.remove(file.path for file in before.files if file.path not in now)

    def remove(self, sealed: SealedSegment) -> None:
        """First from the manifest, so that no reader looks for what is gone."""
        folder = manifest_folder(_TOP, sealed.experiment_id)
        self._single_lines(sealed.experiment_id)
        self._remote.remove([str(folder / file_name(Line(segment=sealed)))])
        self._remote.remove(file.path for file in sealed.files)

    def _single_lines(self, experiment_id: str) -> None:
        """Where files of many lines came from a folder, each line gets a file of its own."""
        names = [name for name in self._lines.get(experiment_id, {}) if name.startswith(MANY)]
        if names:
            folder = manifest_folder(_TOP, experiment_id)
            for line in self.manifest(experiment_id).lines:
                self._remote.write(str(folder / file_name(line)), encoded(line))
            self._remote.remove(str(folder / name) for name in names)

    def remove_experiment(self, experiment_id: str) -> None:
        """First its manifest, then what others that were at work have brought too."""
        self._remote.remove(self._remote.sizes(str(manifest_folder(_TOP, experiment_id))))
        for table in (*OF_SEGMENTS, *OF_EXPERIMENTS):
            folder = _TOP / f"table={table}" / f"experiment_id={experiment_id}"
            self._remote.remove(self._remote.sizes(str(folder)))


def bring(scratch: Path, line: Line, remote: RemoteFolder) -> None:
    """What a task has made goes to the address, and the line that names it last. Raises StoreError."""
    sealed = line.segment or line.results
    assert sealed is not None
    for file in sealed.files:
        remote.put(scratch / file.path, file.path)
    remote.write(str(manifest_folder(_TOP, sealed.experiment_id) / file_name(line)), encoded(line))
