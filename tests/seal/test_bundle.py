"""llem export --bundle and llem import: runs go with a paper, and a store gets them back whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from llem.seal.bundle import STAGED_PREFIX
from llem.seal.collect import collect
from llem.store import Store
from llem_events.events import StudyPlace
from tests import world
from tests.conftest import Run
from tests.forked import ForkedLlem
from tests.projections.tables import hashes, rows

STUDY = "20260101-000000-aaaaaaaaaaaa"
IN_STUDY = ["20260101-000001-aaaaaaaaaaaa", "20260101-000002-aaaaaaaaaaaa"]
ALONE = "20260101-000003-bbbbbbbbbbbb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a study of two runs, and a run with a label."""
    store = Store(tmp_path_factory.mktemp("bundled") / "data").create()
    world.begun_study(store, STUDY)
    for block, run in enumerate(IN_STUDY):
        place = StudyPlace(study_id=STUDY, cell_index=0, cell={}, block=block, position=0)
        world.experiment(store, experiment_id=run, study=place)
    world.experiment(store, experiment_id=ALONE, labels={"kind": "alone"})
    return store.path


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory, forked: ForkedLlem) -> Path:
    """The bundle of the study."""
    path = tmp_path_factory.mktemp("bundle") / "study"
    command = ("export", "--bundle", path, "--runs", STUDY, "--store", folder)
    done = forked.run(command, environment=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in path.parent.iterdir()] == ["study"]
    return path


def _runs(store: Path) -> list[str]:
    return Store(store).experiment_ids()


@pytest.mark.slow
def test_a_bundle_comes_back_whole(
    bundle: Path, folder: Path, llem: Run, store: Path, tmp_path: Path
) -> None:
    """All tables of its runs are those of the store that it is of, the study among them; a second time nothing changes."""
    for _ in range(2):
        taken = llem("import", bundle)
        assert taken.returncode == 0 and taken.stdout.split() == IN_STUDY
    checked = llem("rebuild")
    assert checked.returncode == 0, checked.stderr
    assert llem("rebuild", "--check").returncode == 0
    kept = Store(tmp_path / "kept")
    collect(Store(folder), kept, only={*IN_STUDY, STUDY})
    assert llem("rebuild", "--store", kept.path).returncode == 0
    mine, theirs = hashes(Store(store)), hashes(kept)
    # in which the times of the files are
    del mine["segments"], theirs["segments"]
    assert mine == theirs and len(mine) > 10
    assert rows(Store(store), "SELECT runs FROM studies") == [{"runs": 2}]
    assert (store / "studies" / STUDY).is_dir()


def test_a_bundle_is_read_without_llem(bundle: Path) -> None:
    """Tables are Parquet with as many rows as the manifest says, and each run has its plan, its environment and a line of the README."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for table, count in manifest["rows"].items():
        found = duckdb.sql(f"SELECT count(*) FROM '{bundle}/tables/{table}.parquet'").fetchall()
        assert found == [(count,)]
    assert manifest["rows"]["samples"] == 2 * 345 and manifest["studies"] == [STUDY]
    for run in IN_STUDY:
        plan = json.loads((bundle / "runs" / run / "plan.json").read_text())
        assert plan["windows"]["baseline_s"] == 3.0
        (worker,) = json.loads((bundle / "runs" / run / "environment.json").read_text())
        assert worker["engine"] == "transformers"
        assert f"| {run} |" in (bundle / "README.md").read_text()


def test_the_manifest_has_the_digest_of_each_log(bundle: Path, folder: Path, llem: Run) -> None:
    """It is what llem log digest prints."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    told = llem("log", "digest", IN_STUDY[0], "--json", "--store", folder)
    assert manifest["root_digests"][IN_STUDY[0]] == json.loads(told.stdout)["root_digest"]


@pytest.mark.parametrize(
    ("named", "taken"), [("kind=alone", [ALONE]), (f"{IN_STUDY[1]},{ALONE}", [IN_STUDY[1], ALONE])]
)
def test_runs_are_chosen_by_label_and_id(
    named: str, taken: list[str], folder: Path, llem: Run, tmp_path: Path
) -> None:
    """As in every other export, and by label."""
    path = tmp_path / "chosen"
    done = llem("export", "--bundle", path, "--runs", named, "--store", folder)
    assert done.returncode == 0, done.stderr
    assert _runs(path / "store") == taken


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
@pytest.mark.parametrize("pattern", ["store/log/*/worker*", "tables/samples.parquet", "runs/*/plan.json"])
def test_a_damaged_bundle_is_refused_by_the_name_of_the_file(
    damage: Callable[[Path], None], pattern: str, bundle: Path, llem: Run, store: Path, tmp_path: Path
) -> None:
    """Nothing of it is taken."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    path = min(copy.glob(pattern))
    damage(path)
    refused = llem("import", copy)
    assert refused.returncode == 2
    assert str(path) in refused.stderr
    assert not store.exists()


def test_what_the_manifest_does_not_name_is_refused(
    bundle: Path, llem: Run, store: Path, tmp_path: Path
) -> None:
    """A file more, and a link."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (more := copy / "store" / "log" / IN_STUDY[0] / "more.events.zst").write_bytes(b"")
    assert f"{more} is in the bundle, and not in its manifest" in llem("import", copy).stderr
    more.unlink()
    more.symlink_to("/dev/zero")
    assert "found a link or a device" in llem("import", copy).stderr
    more.unlink()
    (copy / "manifest.json").write_text('{"format": "other"}')
    assert "is no manifest of a bundle" in llem("import", copy).stderr
    assert not store.exists()


def test_a_bundle_is_not_taken_into_itself(bundle: Path, llem: Run) -> None:
    """A store that is made where one stands, within the bundle, would damage it."""
    before = sorted(bundle.rglob("*"))
    refused = llem("import", bundle, "--store", bundle / "llem-data")
    assert refused.returncode == 2 and "another store" in refused.stderr
    assert sorted(bundle.rglob("*")) == before


def test_a_damaged_log_is_not_bundled(llem: Run, store: Path, tmp_path: Path) -> None:
    """It is named, and no folder is left behind."""
    world.experiment(Store(store).create())
    _flip(min(Store(store).log_path.glob("*/sampler*")))
    refused = llem("export", "--bundle", tmp_path / "bundle")
    assert refused.returncode == 2 and "no bundle of" in refused.stderr and "damaged" in refused.stderr
    assert not (tmp_path / "bundle").exists() and not list(tmp_path.glob(f"{STAGED_PREFIX}*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "found neither, expected OUT, or --bundle DIR"),
        (["out.csv", "--bundle", "bundle"], "found both"),
        (["--bundle", "."], "exists"),
        (["--bundle", "bundle", "--runs", "nothing"], "run or study nothing"),
        (["--bundle", "missing/bundle"], "cannot be made"),
    ],
)
def test_a_bundle_that_cannot_be(
    arguments: list[str], said: str, folder: Path, llem: Run, tmp_path: Path
) -> None:
    """Is refused in one line."""
    placed = [tmp_path / word if word in ("bundle", "missing/bundle") else word for word in arguments]
    refused = llem("export", *placed, "--store", folder)
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert not (tmp_path / "bundle").exists()
