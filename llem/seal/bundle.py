"""A bundle: runs as a folder that goes with a paper, their log among it, from which a store gets them back whole."""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from llem.errors import ExportError, StoreError
from llem.projections.diff import tables
from llem.projections.sealed import COPY_OPTIONS
from llem.seal.collect import Collected, check_apart, collect
from llem.seal.segment import sha256
from llem.sql import disk_reason, identifier, literal
from llem.store import Store
from llem.versions import __version__
from llem_events import root_digest, segment_digest
from llem_events.files import OsFiles

FORMAT = "llem-bundle"
VERSION = 1
MANIFEST = "manifest.json"
LOG_STORE = "store"
STAGED_PREFIX = ".llem-bundle-"
MOST_MANIFEST_BYTES = 2**28

_RUNS = """
SELECT e.experiment_id, e.name, e.status, r.model_name, r.engine, r.total_energy_j, r.energy_source, r.output_tokens, r.duration_sec, r.valid
FROM experiments e LEFT JOIN experiment_results r USING (experiment_id) WHERE list_contains($ids, e.experiment_id) ORDER BY e.experiment_id
"""
_README = """# Measurements by llem {version}

{count}, bundled on {day} (UTC).

| run | name | model | J | energy | output tokens | s | valid |
| --- | --- | --- | --- | --- | --- | --- | --- |
{runs}

| path | what |
| --- | --- |
| `store/` | the log: every fact of every run, as it was measured |
| `tables/` | all tables made of it, as Parquet, for any reader of Parquet |
| `runs/` | plan and environment of each run, as JSON |
| `manifest.json` | SHA-256 of every file, rows of every table, root digest of every run's log |

`llem import FOLDER --store DIR` checks every file, takes the runs into a store, and makes all tables anew from the log;
`llem log digest RUN` prints a run's root digest. An empty cell was not measured.
"""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of the bundle is to be."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds, in JSON."""

    format: str
    version: int
    llem_version: str
    root_digests: dict[str, str]  # experiment -> of its log
    studies: list[str] = []
    rows: dict[str, int]  # of each table
    files: dict[str, File]  # path within the bundle -> what it is


def check_bundle(folder: Path) -> None:
    """Raises ExportError unless a bundle can be made there; asked before any work is done for it."""
    target = folder.resolve()
    if os.path.lexists(target):
        raise ExportError(f"{folder} exists", expected="a folder that is not there yet")
    if store := Store.around(target):
        raise ExportError(
            f"{folder} is inside the store {store.path}", expected="a folder outside of any store"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ExportError(f"{folder} cannot be made", found=f"no folder {target.parent} that can be written")


def write_bundle(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    folder: Path,
    experiment_ids: Sequence[str],
    study_ids: Collection[str] = (),
) -> Manifest:
    """The runs as a new folder, which appears whole or not at all. Raises LlemError."""
    check_bundle(folder)
    with _appearing(folder.resolve()) as staged:
        digests = _copy_log(store, Store(staged / LOG_STORE), {*experiment_ids, *study_ids})
        rows = _write_tables(connection, staged / "tables", experiment_ids)
        _write_runs(connection, staged / "runs", experiment_ids)
        runs = connection.execute(_RUNS, {"ids": list(experiment_ids)}).fetchall()
        (staged / "README.md").write_text(_readme(runs), encoding="utf-8")
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            llem_version=__version__,
            root_digests=digests,
            studies=sorted(study_ids),
            rows=rows,
            files=dict(_files(staged)),
        )
        (staged / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        _make_durable(staged)
    return manifest


def is_bundle(path: Path) -> bool:
    """Whether a path is a folder that says it is one."""
    return path.is_dir() and (path / MANIFEST).is_file()


def verified(folder: Path) -> Manifest:
    """What a bundle holds, of which every byte is as it was written. Raises ExportError naming the first file that is not."""
    manifest = _manifest(folder / MANIFEST)
    there = {path: file for path, file in _files(folder) if path != MANIFEST}
    for path, expected in manifest.files.items():
        if path not in there:
            raise ExportError(f"{folder / path} of the bundle is missing")
        if there[path] != expected:
            raise ExportError(
                f"{folder / path} of the bundle is damaged",
                found=f"{there[path].bytes} bytes of SHA-256 {there[path].sha256[:16]}...",
                expected=f"{expected.bytes} bytes of {expected.sha256[:16]}...",
                hint="get the bundle again",
            )
    for path in there.keys() - manifest.files.keys():
        raise ExportError(f"{folder / path} is in the bundle, and not in its manifest")
    return manifest


def take_bundle(folder: Path, into: Store) -> tuple[Manifest, Collected]:
    """Take all runs of a bundle into a store, byte for byte. Raises LlemError; where the bundle is damaged nothing is taken."""
    # a store in the bundle, such as one made where the bundle lies, would be what its manifest does not have
    check_apart(Store(folder), into)
    manifest = verified(folder)
    source = Store(folder / LOG_STORE)
    for experiment_id, expected in manifest.root_digests.items():
        if _root_digest(source, experiment_id) != expected:
            raise ExportError(
                f"experiment {experiment_id} of {folder}",
                found="another log than its root digest says",
                hint="get the bundle again",
            )
    return manifest, collect(source, into)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    try:
        staged = Path(tempfile.mkdtemp(prefix=STAGED_PREFIX, dir=folder.parent))
        try:
            yield staged
            OsFiles().rename(staged, folder)
            OsFiles().sync_directory(folder.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be made", found=error.strerror or str(error)) from error
    except StoreError as error:
        # of the store in it, which nobody has heard of
        raise ExportError(f"{folder} cannot be made", found=error.found or error.what) from error
    except duckdb.IOException as error:
        raise ExportError(f"{folder} cannot be made", found=disk_reason(error)) from error


def _copy_log(store: Store, into: Store, ids: Collection[str]) -> dict[str, str]:
    """Verified copies; returns the root digest of each run. Raises ExportError where one cannot be taken."""
    collected = collect(store, into, only=ids)
    for left in collected.left:
        raise ExportError(
            f"no bundle of {left.path}", found=f"{left.kind}: {left.reason}", hint="leave it out with --runs"
        )
    return {experiment_id: _root_digest(into, experiment_id) for experiment_id in into.experiment_ids()}


def _root_digest(store: Store, experiment_id: str) -> str:
    return root_digest(map(segment_digest, store.segments(experiment_id))).hex()


def _write_tables(
    connection: duckdb.DuckDBPyConnection, folder: Path, experiment_ids: Sequence[str]
) -> dict[str, int]:
    """Every table that has rows of the experiments, as Parquet; returns how many."""
    folder.mkdir()
    chosen = f"experiment_id IN ({', '.join(map(literal, experiment_ids)) or 'NULL'})"
    rows = {}
    for name in tables(connection):
        if name == "projection":
            continue
        path, table = folder / f"{name}.parquet", identifier(name)
        (count,) = connection.execute(
            f"COPY (FROM {table} WHERE {chosen}) TO {literal(str(path))} ({COPY_OPTIONS})"
        ).fetchall()[0]
        rows[name] = int(count)
    return rows


def _write_runs(connection: duckdb.DuckDBPyConnection, folder: Path, experiment_ids: Sequence[str]) -> None:
    """Plan and environment of each."""
    asked = {"ids": list(experiment_ids)}
    plans = "SELECT experiment_id, plan FROM experiments WHERE list_contains($ids, experiment_id)"
    for experiment_id, plan in connection.execute(plans, asked).fetchall():
        (folder / experiment_id).mkdir(parents=True)
        _write_json(folder / experiment_id / "plan.json", _decoded(plan))
    environments = (
        "SELECT experiment_id, process_index, host, engine, versions, environment FROM processes "
        "WHERE list_contains($ids, experiment_id) ORDER BY ALL"
    )
    workers: dict[str, list[Mapping[str, Any]]] = {}
    for experiment_id, index, host, engine, versions, environment in connection.execute(
        environments, asked
    ).fetchall():
        said = {"process_index": index, "host": host, "engine": engine, "versions": versions}
        workers.setdefault(experiment_id, []).append({**said, "environment": _decoded(environment)})
    for experiment_id, told in workers.items():
        _write_json(folder / experiment_id / "environment.json", told)


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _write_json(path: Path, content: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")


def _readme(runs: Sequence[tuple[Any, ...]]) -> str:
    lines = []
    for run, name, status, model, engine, joules, source, tokens, seconds, valid in runs:
        cells = (run, name, model or engine, joules, source or status, tokens, seconds, valid)
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    day = datetime.now(UTC).date().isoformat()
    return _README.format(version=__version__, count=count, day=day, runs="\n".join(lines))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
    return " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split())


def _files(folder: Path) -> Iterator[tuple[str, File]]:
    """Every file below a folder, by its path within it; links are none of a bundle. Raises ExportError."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ExportError(f"{path} is in the bundle", found="a link or a device", expected="a file")
        if path.is_file():
            yield path.relative_to(folder).as_posix(), _file(path)


def _file(path: Path) -> File:
    try:
        return File(path.stat().st_size, sha256(path))
    except OSError as error:
        raise ExportError(f"{path} cannot be read", found=error.strerror) from error


def _manifest(path: Path) -> Manifest:
    try:
        if path.stat().st_size > MOST_MANIFEST_BYTES:
            raise ExportError(f"{path} is too large", expected=f"at most {MOST_MANIFEST_BYTES} bytes")
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise ExportError(f"{path} cannot be read", found=error.strerror) from error
    except msgspec.DecodeError as error:
        raise ExportError(f"{path} is no manifest of a bundle", found=str(error)) from error
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        raise ExportError(
            f"{path} is no manifest that this llem reads",
            found=f"{manifest.format} {manifest.version}",
            expected=f"{FORMAT} {VERSION}",
        )
    return manifest


def _make_durable(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
