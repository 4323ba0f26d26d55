"""When the writer closes a block, when it syncs, and what a survey says of what it wrote: exactly at the limits."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from llem_events import (
    CorruptError,
    LogWriteError,
    NewerFormatError,
    SegmentReader,
    SegmentWriter,
    SyncPolicy,
    Verdict,
    envelope,
    publish_schema,
    survey,
)
from llem_events.clock import boot_id
from llem_events.damage import Damage
from llem_events.events import (
    BaselineMeasured,
    ClockRead,
    Device,
    Event,
    MeteredDevice,
    MeterStarted,
    ProcessStarted,
    RequestsCompleted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
)
from llem_events.files import OsFiles
from llem_events.following import GrowingSegments
from llem_events.format import (
    BLOCK_HEADER_BYTES,
    BLOCK_TARGET_BYTES,
    Seal,
    kind_of,
    pack_block,
    pack_header,
    pack_record,
    pack_seal,
    peek_header,
    unpack_block_header,
    unpack_header,
    unpack_seal,
)
from llem_events.inspection import Survey, plain, readable_row
from llem_events.reader import Position
from llem_events.replay import Occurrence, replay
from llem_events.request_events import times_problem
from llem_events.texts import check_known, unknown_text
from tests.log.segments import segment_header
from tests.world import request

NOTE = WarningRaised(code="c", text="t")


class Counted(OsFiles):
    """Files that count how often they are synced."""

    def __init__(self) -> None:
        self.syncs = 0

    def sync(self, fd: int) -> None:
        self.syncs += 1
        super().sync(fd)


def written(path: Path, *blocks: Sequence[Event], role: str = "worker", sealed: bool = True) -> Path:
    writer = SegmentWriter(path, segment_header(role=role), sync="close")
    for events in blocks:
        for event in events:
            writer.append(event, at_ns=0)
        writer.flush()
    if sealed:
        writer.seal()
    writer.close()
    return path


@pytest.mark.parametrize(("over", "waiting"), [(0, 2), (1, 1)])
def test_a_block_holds_its_target_and_no_more(tmp_path: Path, over: int, waiting: int) -> None:
    """What would make it larger begins the next one; numbers count on."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    half = BLOCK_TARGET_BYTES // 2
    numbers = [writer.append_message(bytes(length), at_ns=2**62) for length in (half, half + over)]
    assert numbers == [0, 1] and writer.pending_events == waiting
    assert writer.append_message(b"\0", at_ns=2**62) == 2
    writer.close()


def test_an_event_larger_than_a_block_is_one(tmp_path: Path) -> None:
    """Nothing empty is written before it."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    writer.append_message(bytes(BLOCK_TARGET_BYTES + 1), at_ns=2**62)
    assert writer.pending_events == 1
    writer.append_message(b"\0", at_ns=2**62)
    assert writer.pending_events == 1 and writer.seal().blocks == 2


@pytest.mark.parametrize(
    ("policy", "syncs"), [({}, (1, 1)), ({"sync": "block"}, (1, 1)), ({"sync": "close"}, (0, 1))]
)
def test_blocks_are_on_the_disk_unless_a_power_cut_is_no_matter(
    tmp_path: Path, policy: dict[str, SyncPolicy], syncs: tuple[int, int]
) -> None:
    """Every block by default; what is not synced then is at the close, and nothing twice."""
    files = Counted()
    writer = SegmentWriter(tmp_path / "a", segment_header(), files=files, **policy)
    created = files.syncs
    writer.append(NOTE, at_ns=0)
    writer.flush()
    assert files.syncs - created == syncs[0]
    writer.close()
    writer.close()
    assert (created, files.syncs - created) == (1, syncs[1])
    with pytest.raises(LogWriteError, match="is closed"):
        writer.append(NOTE, at_ns=0)


@pytest.mark.parametrize(("role", "reads"), [("worker", 1), ("import", 0)])
def test_clocks_are_read_unless_events_happened_by_others(tmp_path: Path, role: str, reads: int) -> None:
    """Once the pair of the header is ten seconds old."""
    old = segment_header(role=role, monotonic_ns=time.monotonic_ns() - 10**10)
    writer = SegmentWriter(tmp_path / "a", old, sync="close")
    for _ in range(2):
        writer.append(NOTE, at_ns=0)
        writer.flush()
    writer.seal()
    found = survey(tmp_path / "a")
    assert found.events_by_type.get((ClockRead.TYPE, ClockRead.VERSION), 0) == reads
    assert found.events == 2 + reads


def test_a_payload_that_is_compressed_already_follows_what_waits(tmp_path: Path) -> None:
    """In a block of its own, with the numbers that it says."""
    source = written(tmp_path / "source", [NOTE, NOTE])
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    writer.append(NOTE, at_ns=0)
    with SegmentReader(source) as reader:
        for block in reader.blocks():
            writer.write_payload(block.payload, event_count=2, raw_length=block.header.raw_length)
    seal = writer.seal()
    assert (seal.blocks, seal.events) == (2, 3)
    assert survey(tmp_path / "a").events_by_type == {(NOTE.TYPE, NOTE.VERSION): 3}


class Interrupted(OsFiles):
    """Files in whose writing a signal breaks in, when it is asked for."""

    breaks_in = False

    def write(self, fd: int, chunk: memoryview) -> int:
        if self.breaks_in:
            raise KeyboardInterrupt
        return super().write(fd, chunk)


@pytest.mark.parametrize(
    "write",
    [
        lambda writer: writer.flush(),
        lambda writer: writer.write_payload(b"", event_count=1, raw_length=0),
        lambda writer: writer.seal(),
    ],
    ids=["block", "payload", "seal"],
)
@pytest.mark.parametrize("waiting", [0, 1])
def test_what_was_interrupted_inside_a_write_takes_no_more(
    tmp_path: Path, write: Callable[[SegmentWriter], object], waiting: int
) -> None:
    """Nobody knows how much of it there is; without anything to write there is no write."""
    files = Interrupted()
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close", files=files)
    for _ in range(waiting):
        writer.append(NOTE, at_ns=0)
    files.breaks_in = True
    try:
        write(writer)
    except KeyboardInterrupt:
        with pytest.raises(LogWriteError, match="interrupted inside a write, it takes no more"):
            writer.append(NOTE, at_ns=0)
    else:
        writer.append(NOTE, at_ns=0)
        assert not waiting
    writer.close()


def test_a_reader_stands_at_the_beginning_until_it_reads(tmp_path: Path) -> None:
    """Of a file that ends inside its header it stays there."""
    whole = written(tmp_path / "a", [NOTE], [NOTE, NOTE])
    (tmp_path / "torn").write_bytes(whole.read_bytes()[:20])
    with SegmentReader(tmp_path / "torn") as torn:
        assert torn.header is None and list(torn.blocks()) == []
        assert torn.position == Position(0, 0, 0, b"") and torn.verdict is Verdict.TORN
    with SegmentReader(whole) as reader:
        ends = [block.end for block in reader.blocks()]
        assert [(end.blocks, end.events) for end in ends] == [(1, 1), (2, 3)]
        assert (reader.position.blocks, reader.position.events) == (2, 3)
    with SegmentReader(whole) as again:
        assert [block.header.first_event for block in again.blocks(ends[0])] == [1]
    with SegmentReader(whole) as anew:
        every = anew.blocks(Position(0, 0, 0, b""))
        assert [block.header.first_event for block in every] == [0, 1]
    assert anew.verdict is Verdict.CLEAN


def test_a_header_is_read_alone(tmp_path: Path) -> None:
    """Without the blocks after it; a file that ends inside it has none."""
    whole = written(tmp_path / "a", [NOTE])
    header = pack_header(segment_header(role="worker"))
    (tmp_path / "alone").write_bytes(header)
    assert peek_header(whole) == peek_header(tmp_path / "alone") == segment_header(role="worker")
    for length, text in ((0, "inside its header"), (19, "inside its header"), (20, "record: found 20 bytes")):
        (tmp_path / "short").write_bytes(header[:length])
        with pytest.raises(CorruptError, match=text) as told:
            peek_header(tmp_path / "short")
        assert told.value.offset == 0


def test_a_boot_has_its_id() -> None:
    """As the kernel tells it, on one line."""
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().rstrip("\n") != ""


def survey_of(path: Path, *events: Event, role: str = "worker") -> Survey:
    return survey(written(path, events, role=role))


def test_a_survey_counts_what_is_there(tmp_path: Path) -> None:
    """Blocks, events by type, bytes; nothing lost, and nobody writes."""
    found = survey(written(tmp_path / "a", [NOTE, NOTE], [WindowOpened(kind="guard")]))
    assert (found.verdict, found.blocks, found.events) == (Verdict.CLEAN, 2, 3)
    assert found.events_by_type == {("warning_raised", 1): 2, ("window_opened", 1): 1}
    assert found.seal is not None and found.seal.raw_bytes == found.raw_bytes
    assert found.seal.compressed_bytes == found.compressed_bytes
    assert found.file_bytes == (tmp_path / "a").stat().st_size
    assert (found.unknown_events, found.misfits, found.lost_bytes, found.newer) == (0, 0, 0, None)
    assert (found.lost_blocks, found.lost_events, found.is_being_written) == (0, 0, False)


def metered(kind: str = "gpu", source: str | None = "counter", power: str | None = None) -> MeterStarted:
    device = Device(host="h", uuid="u", index=0, name="n", kind=kind)
    return MeterStarted(
        meter="nvml",
        process_index=0,
        sample_hz=1.0,
        devices=[MeteredDevice(device=device, energy_source=source, power_kind=power)],
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (WindowOpened(kind="later"), "window kind 'later'"),
        (WindowClosed(kind="later"), "window kind 'later'"),
        (BaselineMeasured(position="later", duration_s=1.0, devices=[]), "baseline position 'later'"),
        (metered("later"), "device kind 'later'"),
        (metered(source="later"), "energy source 'later'"),
        (metered(power="later"), "power kind 'later'"),
        (
            ProcessStarted(process_index=0, devices=[metered("later").devices[0].device], engine="e"),
            "device kind 'later'",
        ),
        (RequestsCompleted(window="later", requests=[]), "window kind 'later'"),
        (
            RequestsCompleted(window="warmup", requests=[request(0, 1.0, finish_reason="later")]),
            "finish reason 'later'",
        ),
        (metered(source=None), None),
        (WindowOpened(kind="drain"), None),
        (NOTE, None),
    ],
)
def test_a_text_of_a_later_llem_makes_a_log_newer(tmp_path: Path, event: Event, text: str | None) -> None:
    """Though every byte verifies; the first of them is named."""
    found = survey_of(tmp_path / "a", NOTE, event, WindowOpened(kind="drain"))
    assert found.newer == (None if text is None else f"{text} is not known to this llem; upgrade llem")
    assert (unknown_text(event) is None) is (text is None)
    assert (found.verdict, found.misfits) == (Verdict.CLEAN, 0)


def test_a_header_of_a_later_llem_does_too(tmp_path: Path) -> None:
    """Its role, which comes before what events say."""
    found = survey_of(tmp_path / "a", WindowOpened(kind="later"), role="other")
    assert found.newer == "role 'other' is not known to this llem; upgrade llem"
    check_known(segment_header(role="note"))


@pytest.mark.parametrize(
    ("role", "event"), [("other", NOTE), ("worker", WindowOpened(kind="later"))], ids=["header", "event"]
)
def test_what_only_a_later_llem_knows_is_not_replayed(tmp_path: Path, role: str, event: Event) -> None:
    """It would be taken for something else; what is known is."""
    newer = written(tmp_path / "a", [event], role=role)
    with SegmentReader(newer) as reader, pytest.raises(NewerFormatError, match="is not known to this llem"):
        list(replay(reader))
    with SegmentReader(written(tmp_path / "b", [NOTE])) as reader:
        assert [each.event for each in replay(reader) if isinstance(each, Occurrence)] == [NOTE]


def test_what_does_not_fit_its_type_is_counted_and_ten_are_named(tmp_path: Path) -> None:
    """What nobody knows is counted apart."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    wrong = msgspec.msgpack.encode((NOTE.TYPE, NOTE.VERSION, 0, {"code": 5}))
    unknown = msgspec.msgpack.encode(("unheard", 1, 0, {}))
    for message in (*[wrong] * 11, unknown, envelope.pack(NOTE, 0)):
        writer.append_message(message, at_ns=0)
    writer.seal()
    found = survey(tmp_path / "a")
    assert (found.events, found.misfits, found.unknown_events, len(found.misfit_texts)) == (13, 11, 1, 10)
    assert found.misfit_texts[0].startswith("event 0: ") and found.misfit_texts[9].startswith("event 9: ")


@pytest.mark.parametrize(
    ("next_block", "next_event", "missing"), [(None, None, (0, 0)), (5, 20, (3, 13)), (2, 7, (0, 0))]
)
def test_damage_counts_what_the_numbers_around_it_tell(
    next_block: int | None, next_event: int | None, missing: tuple[int, int]
) -> None:
    """Nothing where nothing follows."""
    damage = Damage(10, 40, "t", 2, 7, next_block, next_event)
    assert (damage.missing_blocks, damage.missing_events) == missing
    said = {"path": Path("a"), "file_bytes": 99, "events_by_type": {}, "damages": (damage, damage)}
    assert Survey(verdict=Verdict.CORRUPT, **said).lost_bytes == 60
    assert Survey(verdict=Verdict.TORN, **said).lost_bytes == 0
    assert Survey(verdict=Verdict.CORRUPT, **said).lost_events == 2 * missing[1]


def test_what_json_does_not_have_is_shown_otherwise() -> None:
    """Bytes as hexadecimal digits, keys as text."""
    known = [None, True, 1, 1.5, "t"]
    assert plain(known) == known
    assert plain({b"k": [b"\x01\xff"], 3: "v", "s": 1}) == {"b'k'": [{"hex": "01ff"}], "3": "v", "s": 1}
    assert plain((1,)) == "(1,)"


def test_a_row_that_cannot_be_read_says_why() -> None:
    """With its bytes; one that can has its number and its body."""
    good = envelope.unpack_all(envelope.pack(NOTE, 7), 1, offset=0)[0]
    row = readable_row(good, 5)
    assert (row["number"], row["at_ns"], row["type"], row["body"]["code"]) == (5, 7, NOTE.TYPE, "c")
    assert "problem" not in row


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ({"token_times_ns": [1, 2]}, None),
        ({"token_times_ns": [1]}, "token times: found 1, expected 2"),
        ({"token_times_ns": []}, "token times: found 0, expected 2"),
        ({"token_times_ns": [], "times_reason": "r"}, None),
        ({"token_times_ns": [1, 2], "times_reason": "r"}, "found token times and a reason for having none"),
        ({"token_times_ns": [1, 2], "chunk_times_ns": [1]}, "found token times and chunk times"),
        ({"token_times_ns": [], "chunk_times_ns": [1], "chunk_tokens": [2]}, None),
        (
            {"token_times_ns": [], "chunk_times_ns": [1, 2], "chunk_tokens": [2]},
            "chunk times: found 2, expected 1",
        ),
        ({"token_times_ns": [], "chunk_tokens": [2]}, "chunk times: found 0, expected 1"),
        (
            {"token_times_ns": [], "chunk_times_ns": [1], "chunk_tokens": [3]},
            "tokens of all chunks: found 3, expected 2",
        ),
        ({"token_times_ns": [], "chunk_times_ns": [1, 2], "chunk_tokens": [9, None]}, None),
    ],
)
def test_exactly_one_way_of_times_holds(times: dict[str, object], problem: str | None) -> None:
    """A time for each token, or chunks, or a reason."""
    found = times_problem(request(0, 1.0, tokens=2, **times))
    assert (found is None) if problem is None else (found is not None and problem in found)


PREFIX_BYTES = len(pack_record(b"LLEB", 1, b""))
FRAMES = {
    "segment header": pack_header(segment_header()),
    "block header": pack_block(
        b"payload",
        segment_id=bytes(16),
        block_number=0,
        first_event=0,
        event_count=1,
        raw_length=7,
        previous_digest=bytes(32),
    )[1][:BLOCK_HEADER_BYTES],
    "seal": pack_seal(Seal(1, 2, 3, 4, bytes(32)), bytes(16)),
}
READ = {
    "segment header": unpack_header,
    "block header": lambda frame: unpack_block_header(frame, 5),
    "seal": lambda frame: unpack_seal(frame, bytes(16), 5),
}


@pytest.mark.parametrize("expected", FRAMES)
@pytest.mark.parametrize("kind", FRAMES)
def test_a_record_is_read_as_what_it_is(kind: str, expected: str) -> None:
    """Another kind is named, and so is a later version; what is cut has another length."""
    frame, read = FRAMES[kind], READ[expected]
    if kind == expected:
        assert read(frame) is not None
        later = pack_record(kind_of(frame), 99, frame[PREFIX_BYTES:])
        with pytest.raises(NewerFormatError, match=f"{kind}: found format version 99, expected at most"):
            read(later)
        longer = pack_record(kind_of(frame), 1, frame[PREFIX_BYTES:] + b"x")
        with pytest.raises(CorruptError):
            read(longer)
    else:
        with pytest.raises(CorruptError, match=f"not a {expected}: found kind"):
            read(frame)


def test_segments_that_have_grown_since_they_were_asked_for(tmp_path: Path) -> None:
    """Each new one, then those that were written to; whoever writes is at work."""
    paths = [tmp_path / name for name in "ab"]
    writers = [SegmentWriter(path, segment_header(), sync="close") for path in paths]
    with GrowingSegments(lambda: paths) as segments:
        assert [reader.path for reader in segments.look()] == paths and segments.are_written()
        assert [reader.path for reader in segments.grown()] == paths and segments.grown() == []
        writers[1].append(NOTE, at_ns=0)
        writers[1].flush()
        assert [reader.path for reader in segments.grown()] == paths[1:] and segments.grown() == []
        for writer in writers:
            writer.seal()
        assert not segments.are_written()


@pytest.mark.parametrize(("damaged", "verdict"), [(False, Verdict.TORN), (True, Verdict.CORRUPT)])
def test_damage_before_a_torn_tail_is_no_crash(tmp_path: Path, damaged: bool, verdict: Verdict) -> None:
    """Each part that does not verify is told."""
    path = written(tmp_path / "a", *[[NOTE]] * 4, sealed=False)
    with SegmentReader(path) as reader:
        offsets = [block.offset for block in reader.blocks()]
    content = bytearray(path.read_bytes()[:-3])
    if damaged:
        content[offsets[1] + BLOCK_HEADER_BYTES] ^= 0xFF
    path.write_bytes(content)
    found = survey(path)
    assert (found.verdict, len(found.damages), found.blocks) == (verdict, 1 + damaged, 3 - damaged)
    assert found.damages[-1].offset == offsets[3]


@pytest.mark.parametrize(
    "event",
    [
        *(WindowOpened(kind=kind) for kind in ("baseline", "warmup", "measurement", "drain", "guard")),
        *(
            RequestsCompleted(window="warmup", requests=[request(0, 1.0, finish_reason=reason)])
            for reason in ("length", "eos", "finished", "stopped", "error")
        ),
        *(metered(kind) for kind in ("gpu", "mig", "cpu_package", "dram", "process", "simulated", "wall")),
        *(metered(source=source) for source in ("counter", "integrated", "estimated", "simulated")),
        *(metered(power=power) for power in ("instant", "average", "derived")),
        *(
            BaselineMeasured(position=position, duration_s=1.0, devices=[])
            for position in ("before", "after", "server_idle")
        ),
    ],
)
def test_what_the_fields_say_is_known(event: Event) -> None:
    """Every text that stands beside a field as one of its."""
    assert unknown_text(event) is None


@pytest.mark.parametrize(
    "role", ["supervisor", "rank", "worker", "sampler", "import", "load", "server", "study", "note"]
)
def test_every_writer_is_known(role: str) -> None:
    """By its role."""
    check_known(segment_header(role=role))


def test_schemas_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    """All of them, in a folder that is made where there is none."""
    for _ in range(2):
        publish_schema.publish(tmp_path / "new" / "schema")
    written_texts = {path.name: path.read_text() for path in (tmp_path / "new" / "schema").iterdir()}
    assert written_texts == publish_schema.documents()
