"""Results of LLenergyMeasure taken into a store: each becomes an experiment of its own, marked as imported."""

import hashlib
import stat
import time
from pathlib import Path

import msgspec

from llem._version import __version__
from llem.errors import ExportError
from llem.results.experiment import ExperimentResult
from llem.results.predecessor import FORMAT, read_predecessor
from llem.store import Store, open_segment
from llem_events.cleaning import scrub_json
from llem_events.events import ExperimentCompleted, ExperimentStarted, ResultImported

MAX_FILE_BYTES = ResultImported.MAX_BYTES - 2**16  # the rest of its event is a name and a digest


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A file that became an experiment."""

    path: Path
    experiment_id: str
    file_sha256: str


def import_result(path: Path, store: Store, *, keep_bytes: bool = False) -> Import:
    """Append one result file to the log, as a new experiment, without the secrets in it unless `keep_bytes`.

    Raises ExportError for a foreign or a known file, and for one that cannot be right; nothing is written then.
    """
    original = _read(path)
    read_predecessor(original, what=str(path))
    kept_bytes = original if keep_bytes else scrub_json(original)
    result = read_predecessor(kept_bytes, what=str(path))
    digest = hashlib.sha256(original).hexdigest()
    experiment_id = f"{result.start_time:%Y%m%d-%H%M%S}-{digest[:12]}"
    if known := [run for run in store.experiment_ids() if run.startswith(experiment_id)]:
        raise ExportError(f"{path} has already been imported", found=f"experiment {known[0]}")
    kept = ResultImported(
        format=FORMAT,
        file_name=path.name,
        file_sha256=digest,
        original=kept_bytes,
        bytes_kept=kept_bytes == original,
    )
    with (
        store.create().whole_experiment(experiment_id) as folder,
        open_segment(folder, experiment_id=experiment_id, role="import") as writer,
    ):
        for event in (_started(result, experiment_id), kept, _completed(result)):
            writer.append(event, at_ns=time.monotonic_ns())
        writer.seal()
    return Import(path=path, experiment_id=experiment_id, file_sha256=digest)


def _started(result: ExperimentResult, experiment_id: str) -> ExperimentStarted:
    return ExperimentStarted(
        experiment_id=experiment_id,
        plan={},  # the predecessor's configuration is another language; it stays in the original
        measurement_config_hash=result.measurement_config_hash,
        expected_processes=len(result.process_results) or 1,
        labels={**result.labels, "imported_id": result.experiment_id},
        llem_version=__version__,
    )


def _completed(result: ExperimentResult) -> ExperimentCompleted:
    return ExperimentCompleted(processes_completed=len(result.process_results) or 1, processes_failed=0)


def _read(path: Path) -> bytes:
    """The file, no more of it than may be taken. A pipe may never say anything, and a device may have no end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ExportError(
                f"{path} cannot be read", found="not a regular file", hint="write it to a file first"
            )
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ExportError(f"{path} cannot be read", found=error.strerror) from error
    if len(content) > MAX_FILE_BYTES:
        raise ExportError(f"{path} is too large", expected=f"at most {MAX_FILE_BYTES} bytes")
    return content
