"""Results of LLenergyMeasure taken into a store: each becomes an experiment of its own, marked as imported."""

import hashlib
import time
from pathlib import Path

import msgspec

from llem._version import __version__
from llem.errors import ExportError
from llem.measure.segments import open_segment
from llem.results.imported import FORMAT, read_predecessor
from llem.store import Store
from llem_events.events import ExperimentCompleted, ExperimentStarted, ResultImported

MAX_FILE_BYTES = ResultImported.MAX_BYTES - 2**16  # the rest of its event is a name and a digest


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A file that became an experiment."""

    path: Path
    experiment_id: str
    file_sha256: str


def import_result(path: Path, store: Store) -> Import:
    """Append one result file to the log, as a new experiment. Raises ExportError for a foreign or a known file."""
    original = _read(path)
    result = read_predecessor(original, what=str(path))
    digest = hashlib.sha256(original).hexdigest()
    experiment_id = (
        f"{result.start_time:%Y%m%d-%H%M%S}-{digest[:16]}"  # sorts by time; the same file has the same id
    )
    if experiment_id in store.experiment_ids():
        raise ExportError(f"{path} has already been imported", found=f"experiment {experiment_id}")
    processes = len(result.process_results) or 1
    started = ExperimentStarted(
        experiment_id=experiment_id,
        plan={},  # the predecessor's configuration is another language; it stays in the original
        measurement_config_hash=result.measurement_config_hash,
        expected_processes=processes,
        labels={**result.labels, "imported_id": result.experiment_id},
        llem_version=__version__,
    )
    kept = ResultImported(format=FORMAT, file_name=path.name, file_sha256=digest, original=original)
    completed = ExperimentCompleted(processes_completed=processes, processes_failed=0)
    with (
        store.create().whole_experiment(experiment_id) as folder,
        open_segment(folder, experiment_id=experiment_id, role="import") as writer,
    ):
        for event in (started, kept, completed):
            writer.append(event, at_ns=time.monotonic_ns())
        writer.seal()
    return Import(path=path, experiment_id=experiment_id, file_sha256=digest)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ExportError(
                f"{path} is too large", found=f"{size} bytes", expected=f"at most {MAX_FILE_BYTES}"
            )
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read", found=error.strerror) from error
