"""llem collect: many stores become one, whole or not at all."""

import fcntl
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from llem.errors import StoreError
from llem.projections import catch_up
from llem.seal.collect import STAGED_PREFIX, collect, collect_experiment
from llem.store import Store
from tests import world
from tests.conftest import QUICK, SIMULATED, Run
from tests.projections.tables import result


def of_host(path: Path, host: str, index: int, *, experiment_id: str = world.EXPERIMENT) -> Store:
    """A store with what one of two hosts wrote of an experiment."""
    store = Store(path / host).create()
    if index == 0:
        world.supervisor(store, processes=2, experiment_id=experiment_id)
    said = {
        "worker": world.worker_events(index, uuid=f"GPU-{index}", host=host),
        "sampler": world.sampler_events(index, uuid=f"GPU-{index}", host=host),
    }
    for role, events in said.items():
        world.write(store, events, role=role, index=index, host=host, experiment_id=experiment_id, blocks=4)
    return store


@pytest.fixture
def hosts(tmp_path: Path) -> list[Store]:
    """The stores of two hosts of one experiment."""
    return [of_host(tmp_path, "node-a", 0), of_host(tmp_path, "node-b", 1)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_segments_of_several_hosts_become_one_experiment(hosts: list[Store], tmp_path: Path) -> None:
    """The energy of both hosts is in one result, private files hold the very bytes, and the sources are as they were."""
    before = [contents(host.path) for host in hosts]
    into = Store(tmp_path / "all")
    taken = [collect(host, into) for host in hosts]
    assert [each.segments for each in taken] == [3, 2] and all(each.experiments == 1 for each in taken)
    assert [contents(host.path) for host in hosts] == before
    assert contents(into.log_path) == {
        name.removeprefix("log/"): content for each in before for name, content in each.items()
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in into.segments(world.EXPERIMENT))
    catch_up(into)
    assert result(into)["total_energy_j"] == pytest.approx(2 * 4080.0)


def test_what_is_there_already_is_skipped(hosts: list[Store], tmp_path: Path) -> None:
    """A second time copies nothing, and counts what is there."""
    into = Store(tmp_path / "all")
    collect(hosts[0], into)
    again = collect(hosts[0], into)
    assert (again.segments, again.present, list(again.left)) == (0, 3, [])


def test_a_conflicting_segment_is_refused_by_name(hosts: list[Store], tmp_path: Path) -> None:
    """Nothing of the experiment is taken where another segment has the name of one of its own, and none is overwritten."""
    into = Store(tmp_path / "all").create()
    place = into.create_experiment(world.EXPERIMENT) / hosts[0].segments(world.EXPERIMENT)[1].name
    place.write_bytes(b"something else")
    taken = collect(hosts[0], into)
    assert taken.segments == 0 and [left.kind for left in taken.left] == ["conflicting"]
    assert place.name in str(taken.left[0])
    assert contents(into.log_path) == {f"{world.EXPERIMENT}/{place.name}": b"something else"}


def test_an_earlier_copy_of_a_growing_segment_is_replaced(hosts: list[Store], tmp_path: Path) -> None:
    """A segment that was copied before its writer ended becomes whole."""
    into = Store(tmp_path / "all").create()
    source = hosts[0].segments(world.EXPERIMENT)[0]
    place = into.create_experiment(world.EXPERIMENT) / source.name
    place.write_bytes(source.read_bytes()[:-100])
    assert collect(hosts[0], into).segments == 3
    assert place.read_bytes() == source.read_bytes()
    source.write_bytes(source.read_bytes()[:-100])
    assert collect(hosts[0], into).present == 3


def test_damage_is_not_taken_for_good(hosts: list[Store], tmp_path: Path) -> None:
    """An experiment with a damaged segment is left and named; --salvage takes it as it is and says so."""
    segment = hosts[0].segments(world.EXPERIMENT)[2]
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    segment.write_bytes(damaged)
    into = Store(tmp_path / "all")
    taken = collect(hosts[0], into)
    assert [left.kind for left in taken.left] == ["damaged"] and segment.name in str(taken.left[0])
    assert contents(into.log_path) == {}
    taken = collect(hosts[0], into, salvage=True)
    assert [left.path for left in taken.damaged] == [segment] and taken.segments == 3


def test_a_segment_of_another_experiment_is_damage(hosts: list[Store], tmp_path: Path) -> None:
    """A folder that was renamed would bring figures under another's name."""
    (hosts[0].log_path / world.EXPERIMENT).rename(hosts[0].log_path / "run-2")
    taken = collect(hosts[0], Store(tmp_path / "all"))
    assert [left.kind for left in taken.left] == ["damaged"]


@pytest.mark.parametrize("what", ["segment", "experiment", "name"])
def test_what_a_store_does_not_read_is_told(hosts: list[Store], tmp_path: Path, what: str) -> None:
    """A link, or a folder whose name is no id: its source would be removed in the belief that all is there."""
    folder = hosts[0].log_path / world.EXPERIMENT
    match what:
        case "segment":
            linked = hosts[0].segments(world.EXPERIMENT)[0]
            linked.rename(tmp_path / "elsewhere")
            linked.symlink_to(tmp_path / "elsewhere")
        case "experiment":
            folder.rename(tmp_path / "elsewhere")
            folder.symlink_to(tmp_path / "elsewhere")
        case "name":
            folder.rename(hosts[0].log_path / "Run 1")
    taken = collect(hosts[0], Store(tmp_path / "all"))
    assert [left.kind for left in taken.left] == ["unreadable"] and not taken.experiments


def test_a_run_that_goes_on_is_left(hosts: list[Store], tmp_path: Path) -> None:
    """Half of it would look like one that was killed; when it has ended, it is taken."""
    into = Store(tmp_path / "all")
    with hosts[0].segments(world.EXPERIMENT)[0].open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert [left.kind for left in collect(hosts[0], into).left] == ["being written"]
    assert collect(hosts[0], into).experiments == 1


def test_a_rank_brings_what_is_whole(hosts: list[Store], tmp_path: Path) -> None:
    """Of an experiment that other ranks of its host still write, their segments are left to them."""
    into = Store(tmp_path / "all")
    with hosts[0].segments(world.EXPERIMENT)[0].open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert collect_experiment(hosts[0], into, world.EXPERIMENT).segments == 2
    taken = collect_experiment(hosts[0], into, world.EXPERIMENT)
    assert (taken.segments, taken.present) == (1, 2)


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(
    hosts: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was copied before the disk refused is gone again."""

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    into = Store(tmp_path / "all")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="No space left"):
        collect(hosts[0], into)
    assert list(into.log_path.iterdir()) == []


def test_what_a_killed_collector_left_is_no_experiment_and_goes(hosts: list[Store], tmp_path: Path) -> None:
    """A day later nobody can be at work on it."""
    into = Store(tmp_path / "all").create()
    leftover = into.log_path / f"{STAGED_PREFIX}{world.EXPERIMENT}-xyz"
    shutil.copytree(hosts[0].log_path / world.EXPERIMENT, leftover)
    assert into.experiment_ids() == []
    collect(hosts[1], into)
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    collect(hosts[1], into)
    assert not leftover.exists()


def test_studies_come_along(tmp_path: Path) -> None:
    """What a store knows of its studies is in the other one."""
    source, into = Store(tmp_path / "source").create(), Store(tmp_path / "all")
    world.begun_study(source, "study-1")
    assert collect(source, into).segments == 1
    assert contents(into.studies_path) == contents(source.studies_path)


def test_the_command_says_what_it_did(hosts: list[Store], tmp_path: Path, llem: Run) -> None:
    """A line for each store, and status 1 where something was left because it conflicts."""
    into = tmp_path / "all"
    done = llem("collect", *(host.path for host in hosts), "--into", into, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [line["segments"] for line in lines] == [3, 2]
    segment = Store(into).segments(world.EXPERIMENT)[0]
    segment.write_bytes(b"something else")
    done = llem("collect", hosts[0].path, "--into", into)
    assert done.returncode == 1 and segment.name in done.stderr


@pytest.mark.parametrize("inside", [".", "log", "new/store"])
def test_nothing_is_collected_into_its_source(
    hosts: list[Store], tmp_path: Path, llem: Run, inside: str
) -> None:
    """Nor into a folder of it, by collect or by measure: a source does not change."""
    source = hosts[0].path
    before = contents(source)
    others = llem("collect", hosts[1].path, source, "--into", source / inside)
    measured = llem("measure", *QUICK, *SIMULATED, "--store", source, "--collect", source / inside)
    assert (others.returncode, measured.returncode) == (2, 2)
    assert "another store" in others.stderr and "another store" in measured.stderr
    assert contents(source) == before


@pytest.mark.slow
def test_a_run_is_collected_when_it_has_ended(tmp_path: Path, llem: Run) -> None:
    """llem measure --collect brings its experiment, and no other, into the shared store."""
    shared = tmp_path / "shared"
    node = of_host(tmp_path, "node", 0)
    done = llem("measure", *QUICK, *SIMULATED, "--store", node.path, "--collect", shared)
    assert done.returncode == 0, done.stderr
    assert Store(shared).experiment_ids() == [
        each for each in node.experiment_ids() if each != world.EXPERIMENT
    ]
    assert "collected" in done.stderr


def test_a_store_that_cannot_be_collected_into_is_refused_before_anything_is_measured(
    tmp_path: Path, llem: Run
) -> None:
    """A figure of hours is not lost to a name that was mistyped."""
    (tmp_path / "file").touch()
    done = llem("measure", *QUICK, *SIMULATED, "--collect", tmp_path / "file")
    assert done.returncode == 2 and "file" in done.stderr and "run" not in done.stdout
