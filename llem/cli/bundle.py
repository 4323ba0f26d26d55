"""Runs as people name them, written as a bundle; and a bundle taken back."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from llem.cli import console
from llem.cli.tables import tables_of
from llem.comparing import named_groups
from llem.errors import ExportError, StoreError
from llem.seal.bundle import check_bundle, take_bundle, verified, write_bundle
from llem.store import Store
from llem.study.history import find_study_id

_STUDIES = "SELECT DISTINCT study_id FROM study_runs WHERE list_contains($ids, experiment_id) ORDER BY ALL"
_OF_STUDY = "SELECT experiment_id FROM study_runs WHERE study_id = $study ORDER BY ALL"


def export_bundle(folder: Path, store: Store, named: Sequence[str]) -> None:
    """Write what is named, or all runs, and say what was written. Raises LlemError."""
    check_bundle(folder)
    with tables_of(store) as connection:
        chosen = _chosen(connection, store, [name for names in named for name in names.split(",")])
        if not chosen:
            raise ExportError("no bundle", found="no run", expected="at least one")
        studies = [study for (study,) in connection.execute(_STUDIES, {"ids": chosen}).fetchall()]
        manifest = write_bundle(connection, store, folder, chosen, studies)
    kept = sum(file.bytes for file in manifest.files.values())
    console.note(
        f"llem: {console.counted(len(chosen), 'run')} in {console.counted(len(manifest.files), 'file')}, {kept:,} bytes"
    )


def import_bundle(folder: Path, store: Store, *, dry_run: bool) -> bool:
    """Take all its runs, and print their ids; returns whether all are there now. Raises LlemError."""
    if dry_run:
        manifest = verified(folder)
        console.say(f"{folder}: a bundle by llem {manifest.llem_version}, every file as it was written")
        for experiment_id in manifest.root_digests:
            console.say(f"  {experiment_id}")
        return True
    manifest, collected = take_bundle(folder, store)
    for left in collected.left:
        console.complain(str(left))
    taken = [run for run in manifest.root_digests if store.segments(run)]
    console.say("\n".join(taken))
    return not collected.left


def _chosen(connection: duckdb.DuckDBPyConnection, store: Store, named: Sequence[str]) -> list[str]:
    """Ids of the runs of studies, labels, names and ids. Raises QueryError and StoreError."""
    if not named:
        return store.require().experiment_ids()
    return sorted({run for name in named for run in _of(connection, store, name)})


def _of(connection: duckdb.DuckDBPyConnection, store: Store, name: str) -> list[str]:
    if "=" in name:
        return named_groups(connection, store, [name], everywhere=True)[name]
    try:
        return store.resolve_all(name)
    except StoreError as no_run:
        try:
            study = find_study_id(store, name)
        except StoreError:
            raise no_run from None
        return [run for (run,) in connection.execute(_OF_STUDY, {"study": study}).fetchall()]
