"""Runs written as a bundle, and a bundle taken back."""

from pathlib import Path

from llem.cli import console
from llem.cli.chosen_runs import Choice
from llem.cli.tables import tables_of
from llem.seal.bundle import check_bundle, take_bundle, verified, write_bundle
from llem.store import Store

_STUDIES = "SELECT DISTINCT study_id FROM study_runs WHERE list_contains($ids, experiment_id) ORDER BY ALL"


def export_bundle(folder: Path, store: Store, choice: Choice) -> None:
    """Write the runs that are chosen, and say what was written. Raises LlemError."""
    check_bundle(folder)
    with tables_of(store) as connection:
        chosen = choice.ids(connection, store)
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
