"""Which segment files a command means by files, folders and runs; what cannot be listed is named and left out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llem.errors import StoreError
from llem.store import SEGMENT_SUFFIX, Store, mend_access


@dataclass(frozen=True)
class SegmentFiles:
    """Files in the order of the targets, and one error for each folder that could not be looked into."""

    paths: list[Path] = field(default_factory=list)
    refused: list[StoreError] = field(default_factory=list)


def segment_files(targets: Iterable[str], store: Store) -> SegmentFiles:
    """Segment files of the targets; of all runs where there are none. Raises StoreError for a run that is not there."""
    files = SegmentFiles()
    named = list(targets)
    for experiment_id in () if named else store.require().experiment_ids():
        _add_run(files, store, experiment_id)
    for target in named:
        path = Path(target)
        if path.is_dir():
            _add_folder(files, path)
        elif os.path.lexists(path) or os.sep in target or target.endswith(SEGMENT_SUFFIX):
            files.paths.append(path)
        else:
            _add_run(files, store, store.resolve(target))
    return files


def _add_run(files: SegmentFiles, store: Store, experiment_id: str) -> None:
    if (problem := store.unreadable(experiment_id)) is not None:
        files.refused.append(problem)
    files.paths.extend(store.segments(experiment_id))


def _add_folder(files: SegmentFiles, folder: Path) -> None:
    def refuse(error: OSError) -> None:
        hint = mend_access(Path(error.filename)) if isinstance(error, PermissionError) else None
        files.refused.append(
            StoreError(f"folder {error.filename} cannot be read", found=error.strerror, hint=hint)
        )

    names = (
        Path(inner) / name for inner, _, names in os.walk(folder, onerror=refuse) for name in sorted(names)
    )
    files.paths.extend(sorted(path for path in names if path.name.endswith(SEGMENT_SUFFIX)))


def is_denied(path: Path) -> bool:
    """Whether the file is there and belongs to somebody who does not let this user read it."""
    return os.path.exists(path) and not os.access(path, os.R_OK)  # noqa: PTH110 -- Path.exists raises in a folder of another user
