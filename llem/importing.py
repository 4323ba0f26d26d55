"""Files of other programs taken into a store: each of their runs becomes an experiment of its own, marked as imported."""

import hashlib
import importlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from llem.errors import ExportError
from llem.importers.asked import EPOCH, Asked, ImpossibleTimeError
from llem.importers.beside_result import results_in
from llem.importers.document import EARLIEST_S, LATEST_S, Document
from llem.importers.recording import Dated, Mapped, Recording
from llem.registry import IMPORTERS
from llem.results.predecessor import FORMAT, read_predecessor
from llem.store import Store, open_segment
from llem.units import seconds
from llem_events import ClockPair
from llem_events.cleaning import scrub_json
from llem_events.events import ResultImported

# What the log keeps of a file: the rest of its event is a name and a digest.
MOST_KEPT_BYTES = ResultImported.MAX_BYTES - 2**16
# What is read at once, as JSON has to be; logs of samples and lines of requests may have any length.
MOST_READ_BYTES = 64 * 2**20
BEGINNING_BYTES = 2**18
LINE_BY_LINE = ("nvidia-smi", "aiperf", "dcgmi", "mlperf-power")
MOST_RUNS = 1000
# How files of gzip, zstd, xz, bzip2 and zip begin.
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"PK\x03\x04")
NOTHING_ASKED = Asked()


class Run(Protocol):
    """A run of a file, as one of llem.importers understands it."""

    @property
    def began(self) -> datetime: ...
    @property
    def clocks(self) -> ClockPair | None: ...
    @property
    def process_index(self) -> int | None: ...
    @property
    def mapping(self) -> Iterable[Mapped]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def original(self) -> bytes | None: ...
    def events(self, kept: ResultImported, *, experiment_id: str) -> Iterator[Dated]:
        """What is written of it."""
        ...


class Importer(Protocol):
    """A module of llem.importers."""

    OPTIONS: frozenset[str]  # what it takes from the command line

    def recognises(self, document: Document) -> bool: ...
    def recordings(self, document: Document, asked: Asked) -> Iterable[Run]:
        """The runs of a file. Raises LlemError."""
        ...


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was understood; nothing of it is written yet."""

    path: Path
    format: str
    sha256: str
    content: bytes  # as it is kept
    bytes_kept: bool
    runs: Sequence[Run]

    @property
    def ids(self) -> list[str]:
        """Of its runs in a store."""
        numbered = len(self.runs) > 1
        return [
            f"{run.began:%Y%m%d-%H%M%S}-{self.sha256[:12]}{f'-{number}' if numbered else ''}"
            for number, run in enumerate(self.runs, 1)
        ]


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose runs became experiments."""

    path: Path
    experiment_ids: Sequence[str]
    file_sha256: str


class Original(NamedTuple):
    """A file as it lies there: all of it, or whole lines of its beginning."""

    start: bytes
    size: int
    sha256: str

    @property
    def is_beginning(self) -> bool:
        return len(self.start) < self.size


def import_result(
    path: Path,
    store: Store,
    *,
    keep_bytes: bool = False,
    file_format: str | None = None,
    asked: Asked = NOTHING_ASKED,
) -> Import:
    """Append the runs of one file to the log, each as a new experiment, without the secrets in it unless `keep_bytes`.

    Raises LlemError for a foreign or a known file, and for one that cannot be right; nothing is written then.
    """
    file = understand(path, keep_bytes=keep_bytes, file_format=file_format, asked=asked)
    known = set(store.experiment_ids())
    if all(run in known for run in file.ids):
        raise ExportError(f"{path} has already been imported", found=f"experiment {file.ids[0]}")
    new = [(run, name) for run, name in zip(file.runs, file.ids, strict=True) if name not in known]
    for run, experiment_id in new:
        _append(file, run, store, experiment_id)
    return Import(path=path, experiment_ids=[name for _, name in new], file_sha256=file.sha256)


def understand(
    path: Path, *, keep_bytes: bool = False, file_format: str | None = None, asked: Asked = NOTHING_ASKED
) -> File:
    """What a file holds, by the format that is named or by its content. Raises LlemError."""
    original = _read(path)
    if keep_bytes and original.is_beginning:
        raise _too_large(path, original.size, f"at most {MOST_KEPT_BYTES} bytes with --keep-bytes")
    document = _document(path, original, keep_bytes=keep_bytes)
    kept = document.content
    name = file_format or _recognised(document)
    importer = _importer(name)
    if file_format is not None and not importer.recognises(document):
        raise _unknown(document, expected=file_format)
    _check_options(document, name, importer, asked)
    try:
        runs = list(importer.recordings(document, asked))
    except ImpossibleTimeError as error:
        raise _of_another_century(document, str(error)) from None
    if not 0 < len(runs) <= MOST_RUNS:
        raise document.refuse("runs", found=len(runs), expected=f"1 to {MOST_RUNS}")
    _check_times(document, runs)
    return File(
        path=path,
        format=name if all(isinstance(run, Recording) for run in runs) else FORMAT,
        sha256=original.sha256,
        content=kept[:BEGINNING_BYTES] if original.is_beginning else kept,
        bytes_kept=not original.is_beginning and kept == original.start,
        runs=[_not_kept(path, original.size, run) for run in runs] if original.is_beginning else runs,
    )


def _document(path: Path, original: Original, *, keep_bytes: bool) -> Document:
    """All of the file, or the beginning of one that is read line by line. Raises ExportError."""
    content = original.start if keep_bytes else scrub_json(original.start)
    document = Document(content, what=str(path), path=path, is_beginning=original.is_beginning)
    if not original.is_beginning or any(_importer(name).recognises(document) for name in LINE_BY_LINE):
        return document
    if original.size > MOST_READ_BYTES:
        expected = f"at most {MOST_READ_BYTES} bytes, or lines of {', '.join(LINE_BY_LINE)}"
        raise _too_large(path, original.size, expected)
    return Document(scrub_json(path.read_bytes()), what=str(path), path=path)


def _not_kept(path: Path, size: int, run: Run) -> Run:
    """With a warning that the log cannot bring the file back. Raises ExportError for a result that would be read from there."""
    fits = run.original is not None and len(run.original) <= MOST_KEPT_BYTES
    if not isinstance(run, Recording):
        if not fits:
            raise _too_large(path, size, f"at most {MOST_KEPT_BYTES} bytes of one result")
        return run
    note = f"of the {size} bytes of the file the log keeps the beginning and the SHA-256: keep the file"
    part = run.original if fits or run.original is None else run.original[:BEGINNING_BYTES]
    return msgspec.structs.replace(run, notes=[*run.notes, note], original=part)


def files_in(path: Path) -> list[Path]:
    """The files of a folder that are imported, else the path itself."""
    return results_in(path) or [path] if path.is_dir() else [path]


def _check_times(document: Document, runs: Sequence[Run]) -> None:
    """No run began when nobody can have measured it. Raises ExportError."""
    for run in runs:
        clocks = run.clocks
        if clocks is not None and not EARLIEST_S <= seconds(clocks.wall_ns) <= LATEST_S:
            began = EPOCH + timedelta(seconds=seconds(clocks.wall_ns))
            raise _of_another_century(document, began.isoformat(timespec="seconds"))


def _of_another_century(document: Document, found: str) -> ExportError:
    return document.refuse("a run at an impossible time", found=found, expected="one between 2000 and 2100")


def _append(file: File, run: Run, store: Store, experiment_id: str) -> None:
    kept = ResultImported(
        format=file.format,
        file_name=file.path.name,
        file_sha256=file.sha256,
        original=file.content,
        bytes_kept=file.bytes_kept,
    )
    with (
        store.create().whole_experiment(experiment_id) as folder,
        open_segment(
            folder,
            experiment_id=experiment_id,
            role="import",
            process_index=run.process_index,
            clocks=run.clocks,
        ) as writer,
    ):
        for at_ns, event in run.events(kept, experiment_id=experiment_id):
            writer.append(event, at_ns=at_ns)
        writer.seal()


def _recognised(document: Document) -> str:
    """The first format that knows the file. Raises ExportError."""
    for name in IMPORTERS:
        if _importer(name).recognises(document):
            return name
    raise _unknown(document, expected=f"one of {', '.join(IMPORTERS)}")


def _unknown(document: Document, *, expected: str) -> ExportError:
    if "study_design_hash" in document.fields:
        return document.refuse("it is the manifest of a study", hint="import the folder that it stands in")
    try:
        read_predecessor(document.content, what=document.what)
    except ExportError as error:
        if error.hint is not None:  # a file of llem's own
            return error
    start = document.text[:40].splitlines()
    return document.refuse(
        "it is of no format that llem imports" if expected not in IMPORTERS else "it is of another format",
        found=repr(start[0]) if start else "an empty file",
        expected=expected,
    )


def _importer(name: str) -> Importer:
    module: Importer = importlib.import_module(IMPORTERS[name])
    return module


def _check_options(document: Document, name: str, importer: Importer, asked: Asked) -> None:
    for option in Asked.__struct_fields__:
        takes = option in importer.OPTIONS or option == "timezone"  # which may be said of all files at once
        if getattr(asked, option) is not None and not takes:
            flag = option.removesuffix("_s")
            raise document.refuse(f"--{flag} says nothing to a file of {name}, which tells that itself")


def _read(path: Path) -> Original:
    """No more of it than is read at once. A pipe may never say anything, and a device may have no end."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ExportError(
                f"{path} is a folder without results of LLenergyMeasure",
                expected="a file, the folder of a result or a study of LLenergyMeasure, or a bundle",
                hint=f"name its files: {path}/*",
            )
        if not stat.S_ISREG(mode):
            raise ExportError(
                f"{path} cannot be read", found="not a regular file", hint="write it to a file first"
            )
        with open(path, "rb") as file:
            content = file.read(MOST_KEPT_BYTES + 1)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise ExportError(f"{path} cannot be read", found=error.strerror) from error
    if content.startswith(COMPRESSED):
        raise ExportError(f"{path}", found="a compressed file", hint="unpack it first")
    if size > MOST_KEPT_BYTES:
        content = content[:BEGINNING_BYTES]
        content = content[: content.rfind(b"\n") + 1] or content
    return Original(content, size, sha256)


def _too_large(path: Path, size: int, expected: str) -> ExportError:
    return ExportError(
        f"{path} is too large",
        found=f"{size} bytes",
        expected=expected,
        hint="import its parts, or log fewer columns less often",
    )
