"""Files beside their checkpoints, in memory: what is behind, what only grew, what stands in another file."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llem.projections import bulk, checkpoint, containment, database, ingest, projector
from llem.projections.checkpoint import KnownSegment, SegmentFile, pending
from llem.projections.going_on import GoingOn
from llem.projections.log_cells import Identity, Reported, split
from llem.store import Store
from llem_events import Damage, Position, SegmentReader, SegmentWriter
from tests.world import header_of, request, supervisor, supervisor_events, write

USUAL: dict[str, Any] = {
    "experiment_id": "run-1",
    "file": "worker",
    "verdict": "clean",
    "problem": None,
    "being_written": False,
    "skipped_bytes": 0,
    "file_bytes": 100,
    "modified_ns": 7,
    "applied_bytes": 90,
    "blocks": 3,
    "events": 20,
    "samples": 0,
    "requests": 0,
    "digest": "ab",
    "derived_blocks": 3,
    "clock_offset_ns": 0,
}


def known(**fields: Any) -> KnownSegment:
    return KnownSegment(**USUAL | fields)


def found(file_bytes: int = 100, modified_ns: int = 7, path: Path = Path("worker")) -> SegmentFile:
    return SegmentFile(experiment_id="run-1", path=path, file_bytes=file_bytes, modified_ns=modified_ns)


@pytest.mark.parametrize(
    ("fields", "file", "unchanged", "grew"),
    [
        ({}, found(), True, True),
        ({}, found(101), False, False),
        ({}, found(100, 8), False, False),
        ({"verdict": "unclosed"}, found(101), False, True),
        ({"verdict": "unclosed"}, found(99), False, False),
        ({"verdict": "torn"}, found(100, 8), False, False),
        ({"verdict": "unclosed", "being_written": True}, found(), False, True),
    ],
)
def test_a_file_is_compared_with_its_checkpoint(
    fields: dict[str, Any], file: SegmentFile, unchanged: bool, grew: bool
) -> None:
    """Writers append, and not after their seal; who was writing then and writes no more has changed."""
    segment = known(**fields)
    assert (segment.unchanged(file), segment.only_grew(file)) == (unchanged, grew)


def test_a_file_that_may_be_read_now_has_changed(tmp_path: Path) -> None:
    """And one that still may not be has not."""
    (tmp_path / "worker").touch()
    segment = known(verdict="unreadable")
    assert not segment.unchanged(found(path=tmp_path / "worker"))
    assert segment.unchanged(found(path=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("fields", "appended", "copied"),
    [
        ({}, b"", True),
        ({"verdict": "unclosed"}, b"", False),
        ({"file_bytes": 1}, b"", False),
        ({"applied_bytes": 1}, b"", False),
        ({"digest": "00" * 32}, b"", False),
        ({}, b"more", False),
    ],
    ids=["a copy", "not sealed", "another length", "read in part", "another content", "more behind its seal"],
)
def test_a_file_of_other_times_that_ends_as_the_one_that_was_read_is_a_copy(
    log: Store, fields: dict[str, Any], appended: bytes, copied: bool
) -> None:
    """It is as long, and nothing but the seal follows what was applied."""
    path = supervisor(log)
    with SegmentReader(path) as reader:
        *_, last = reader.blocks()
    path.write_bytes(path.read_bytes() + appended)
    end, size = last.end, path.stat().st_size
    applied = {
        "file_bytes": size,
        "applied_bytes": end.offset,
        "blocks": end.blocks,
        "events": end.events,
        "digest": end.digest.hex(),
    }
    segment = known(**applied | fields)
    assert segment.is_copied(found(size, 8, path)) is copied
    assert known(file_bytes=size).is_copied(found(size, 7, path))
    assert not known().is_copied(found(100, 8, log.path / "nothing"))


@pytest.mark.parametrize(
    ("verdict", "skipped_bytes", "refused"),
    [
        *((verdict, 0, True) for verdict in ("corrupt", "newer", "unreadable", "unusable")),
        *((verdict, 0, False) for verdict in ("clean", "unclosed", "torn", "left_out")),
        ("corrupt", 1, False),
    ],
)
def test_which_segments_keep_their_experiment_out(verdict: str, skipped_bytes: int, refused: bool) -> None:
    """Unless their damage was skipped."""
    assert known(verdict=verdict, skipped_bytes=skipped_bytes).refused is refused


def test_where_to_read_on() -> None:
    """After what was applied; where nothing was, there is no place."""
    assert known().position == Position(90, 3, 20, b"\xab")
    assert known(digest=None).position is None


@pytest.mark.parametrize(
    ("fields", "salvage", "behind"),
    [
        ({}, False, False),
        ({"derived_blocks": 2}, False, True),
        ({"derived_blocks": None}, False, True),
        ({"file_bytes": 99}, False, True),
        ({"verdict": "corrupt"}, False, False),
        ({"verdict": "corrupt"}, True, True),
        ({"verdict": "corrupt", "skipped_bytes": 5}, True, False),
    ],
)
def test_what_is_behind(fields: dict[str, Any], salvage: bool, behind: bool) -> None:
    """Files that came, went, changed or are not in the results; with --salvage what was refused."""
    segment = known(**fields)
    files, of_tables = {"run-1": {"worker": found()}}, {"run-1": {"worker": segment}}
    assert pending(files, of_tables, salvage=salvage) == ({"run-1"} if behind else set())
    assert pending(files, {}, salvage=salvage) == pending({}, of_tables, salvage=salvage) == {"run-1"}
    more = {"run-1": {"worker": found(), "sampler": found()}}
    assert pending(more, of_tables, salvage=salvage) == {"run-1"}


def test_files_whose_events_stand_in_another_are_named(log: Store) -> None:
    """Copies, of which the first counts, and damaged ones that were recovered; a broken header is nobody's copy."""
    said = supervisor_events()[:1]
    original = supervisor(log)
    for name in ("a-copy", "z-copy"):
        (original.parent / f"{name}.events.zst").write_bytes(original.read_bytes())
    damaged = write(log, said, role="worker", index=0, segment_id=b"r" * 16)
    again = write(log, said, role="worker", index=0, segment_id=b"s" * 16, recovered_from=b"r" * 16)
    alone = write(log, said, role="worker", index=1)
    (original.parent / "broken.events.zst").write_bytes(b"nothing")
    files = checkpoint.scan(log)["run-1"]
    assert {alone.name, "broken.events.zst"} <= files.keys()
    assert checkpoint.left_out(files.values()) == {
        "z-copy.events.zst": "a copy of a-copy.events.zst",
        original.name: "a copy of a-copy.events.zst",
        damaged.name: f"recovered as {again.name}",
    }


def test_the_header_and_the_writer_of_a_file(tmp_path: Path) -> None:
    """One that is no segment has neither, and one whose writer has ended no writer."""
    (tmp_path / "worker").write_bytes(b"nothing")
    file = found(path=tmp_path / "worker")
    assert file.header() is None and not file.is_being_written()
    assert not found(path=tmp_path / "missing").is_being_written()
    header = header_of("worker")
    with closing(SegmentWriter(tmp_path / "live", header)):
        assert found(path=tmp_path / "live").is_being_written()
    file = found(path=tmp_path / "live")
    assert not file.is_being_written() and file.header() == header


def test_a_store_is_listed(log: Store) -> None:
    """Of each experiment its files, by name, with size and time; of some experiments those alone, and nothing of what is gone."""
    path = supervisor(log)
    supervisor(log, experiment_id="run-2")
    status = path.stat()
    listed = checkpoint.scan(log)
    assert list(listed) == ["run-1", "run-2"]
    assert listed["run-1"] == {path.name: found(status.st_size, status.st_mtime_ns, path)}
    assert checkpoint.scan(log, ["run-2", "run-3"]) == {"run-2": listed["run-2"], "run-3": {}}


def test_ends_of_what_was_applied() -> None:
    """From 0; nothing has none."""
    assert [checkpoint._ends(count) for count in (0, 1, 5)] == [None, (0, 0), (0, 4)]


def test_damage_is_told_with_its_bytes_blocks_and_events() -> None:
    """To where reading went on, if it did."""
    inside = Damage(
        offset=5, end=9, text="no block", first_block=1, first_event=2, next_block=3, next_event=4
    )
    last = Damage(
        offset=9, end=11, text="a tear", first_block=7, first_event=8, next_block=None, next_event=None
    )
    assert ingest._told([inside, last]) == (
        "bytes 5 to 9, from block 1 and event 2 to before block 3 and event 4: no block; "
        "bytes 9 to 11, from block 7 and event 8: a tear"
    )
    assert ingest._told([]) is None


@pytest.mark.parametrize(
    ("most", "first", "rest"),
    [
        (0, [], [(3, [0, 1]), (4, [2, 3, 4])]),
        (1, [(3, [0])], [(3, [1]), (4, [2, 3, 4])]),
        (2, [(3, [0, 1])], [(4, [2, 3, 4])]),
        (3, [(3, [0, 1]), (4, [2])], [(4, [3, 4])]),
        (5, [(3, [0, 1]), (4, [2, 3, 4])], []),
        (9, [(3, [0, 1]), (4, [2, 3, 4])], []),
    ],
)
def test_requests_are_split(
    most: int, first: list[tuple[int, list[int]]], rest: list[tuple[int, list[int]]]
) -> None:
    """The first of them, and those after, each in its event."""
    requests = [request(number, 10.0) for number in range(5)]
    identity = Identity("run-1", 0, "s")
    reported = [
        Reported(identity, 3, "measurement", requests[:2]),
        Reported(identity, 4, "measurement", requests[2:]),
    ]
    parts = [
        [(event.event_number, [asked.request_id for asked in event.requests]) for event in part]
        for part in split(reported, most)
    ]
    assert parts == [first, rest]
    assert reported[0].times == 8


@pytest.fixture
def tables() -> Iterator[database.Tables]:
    """Those of the log, in memory, empty."""
    with database.in_memory() as connection:
        connection.execute(database.LOG_SQL)
        yield database.Tables(connection)


def test_what_is_refused_has_its_checkpoints(tables: database.Tables) -> None:
    """One for each file, with the reason and nothing applied; what was said of the file before is gone."""
    for reason in ("first", "second"):
        ingest.refuse_segments(
            tables, [found(path=Path("log/worker")), found(7, 8, Path("log/sampler"))], reason
        )
    segments = checkpoint.known_segments(tables.connection)["run-1"]
    nothing = dict.fromkeys(ingest.COUNTS, 0) | {
        "digest": None,
        "derived_blocks": None,
        "clock_offset_ns": None,
    }
    refused = nothing | {"verdict": "unusable", "problem": "second"}
    assert segments == {
        "worker": known(**refused),
        "sampler": known(**refused, file="sampler", file_bytes=7, modified_ns=8),
    }
    assert list(checkpoint.known_segments(tables.connection, ["run-2"])) == []
    assert [each.file for each in checkpoint.refused_segments(tables.connection)] == ["sampler", "worker"]
    kept = [{"experiment_id": name} for name in ("run-1", "run-2")]
    for table in containment.LOG_TABLES:
        tables.insert(table, kept)
    containment.set_aside(tables, "run-1", "third")
    for table in containment.LOG_TABLES:
        assert tables.connection.execute(f"SELECT experiment_id FROM {table}").fetchall() == [("run-2",)], (
            table
        )
    problems = {
        name: each.problem for name, each in checkpoint.known_segments(tables.connection)["run-1"].items()
    }
    assert problems == {"sampler": "third", "worker": "second"}
    projector._forget(tables, "run-2")
    assert checkpoint.known_segments(tables.connection) != {}
    projector._forget(tables, "run-1")
    for table in (*containment.LOG_TABLES, "segments"):
        assert tables.connection.execute(f"FROM {table}").fetchall() == [], table


def test_what_is_behind_is_counted_in_bytes() -> None:
    """Those that were not applied; a file that has shrunk has none."""
    files = {
        "run-1": {
            name: found(size) for name, size in (("whole", 100), ("grown", 130), ("shrunk", 7), ("new", 9))
        },
        "run-2": {"new": found(1_000)},
        "run-3": {"new": found(10_000)},
    }
    applied = {"run-1": {name: known(file=name, applied_bytes=100) for name in ("whole", "grown", "shrunk")}}
    report = projector._behind(files, applied, {"run-2", "run-1", "gone"}, "a reason")
    assert (report.behind_experiments, report.behind_bytes) == (["gone", "run-1", "run-2"], 30 + 9 + 1_000)
    assert report.behind_reason == "a reason"


def test_what_is_too_much_at_once_is_halved() -> None:
    """One alone is not, and a middle one comes with the second half."""
    for count, sizes in ((1, []), (2, [1, 1]), (5, [2, 3]), (9, [4, 5])):
        names = [f"run-{number}" for number in range(count)]
        halves = bulk._halves({name: {"worker": found()} for name in names})
        assert [len(half) for half in halves] == sizes
        assert [name for half in halves for name in half] == (names if sizes else [])


def test_a_grown_experiment_without_sums_lacks_them(tables: database.Tables) -> None:
    """Where it has samples; pieces count on from what a segment has of a meter and device."""
    assert not projector._lacks_pieces(tables, "run-1")
    tables.insert("samples", [{"experiment_id": "run-1"}, {"experiment_id": "run-2"}])
    assert projector._lacks_pieces(tables, "run-1") and not projector._lacks_pieces(tables, "run-3")
    rows = [
        {
            "experiment_id": name,
            "segment_id": segment,
            "meter": meter,
            "device_uuid": "GPU-0",
            "samples": samples,
        }
        for name, segment, meter, samples in (
            *(("run-1", "s", "nvml", 5), ("run-1", "s", "nvml", 6), ("run-1", "s", "rapl", 7)),
            *(("run-1", "t", "nvml", 8), ("run-2", "s", "nvml", 9)),
        )
    ]
    tables.insert("sample_pieces", rows)
    assert not projector._lacks_pieces(tables, "run-1")
    replay = ingest.Replay(tables, None, Identity("run-1", 0, "s"))  # type: ignore[arg-type]  # it reads no segment here
    assert replay._sampled_before() == {("nvml", "GPU-0"): 11, ("rapl", "GPU-0"): 7}


def test_what_goes_on_is_told() -> None:
    """With how much of it the figures include."""
    assert str(GoingOn("run-1", 90, 100)) == "run-1 goes on: its figures include 90 of 100 blocks"
