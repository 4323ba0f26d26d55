"""A text is taken out of a segment in every form in which it stands there."""

import json
from pathlib import Path

import msgspec
import pytest

from llem_events import CorruptError, RecoveryRefusedError, SegmentReader, SegmentWriter
from llem_events.events import Event, ExperimentStarted, ResultImported, WarningRaised
from llem_events.inspection import segment_digest
from llem_events.redaction import redact
from tests.log.forged import message
from tests.log.segments import read_segment, segment_header, write_segment


def warning(text: str) -> WarningRaised:
    """An event of some text."""
    return WarningRaised(code="c", text=text)


def redacted(tmp_path: Path, events: list[Event], *texts: str) -> list[object]:
    """The events of a segment without the texts."""
    write_segment(tmp_path / "a", [events])
    redact(tmp_path / "a", tmp_path / "b", texts=texts)
    return [event for _, event in read_segment(tmp_path / "b").events.values()]


def test_a_text_within_another_hides_nothing_of_it(tmp_path: Path) -> None:
    """The longer one goes first, whichever is named first."""
    texts = ("Anna", "Anna-Lena")
    assert redacted(tmp_path, [warning("Anna-Lena and Anna")], *texts) == [warning("*** and ***")]


@pytest.mark.parametrize("only_ascii", [True, False])
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_a_text_goes_from_json_however_it_is_written(tmp_path: Path, only_ascii: bool, slash: str) -> None:
    """With escapes for what is not ASCII or as it stands, with a slash escaped or not."""
    document = json.dumps({"note": 'ä"b/c d'}, ensure_ascii=only_ascii).replace("/", slash)
    imported = ResultImported(format="f", file_name="n", file_sha256="0", original=document.encode())
    (kept,) = redacted(tmp_path, [imported], 'ä"b/c d')
    assert isinstance(kept, ResultImported) and kept.original == b'{"note": "***"}'


def test_four_characters_can_be_taken_out(tmp_path: Path) -> None:
    """Three stand everywhere; nothing at all is nothing to do."""
    assert redacted(tmp_path, [warning("wxyz")], "wxyz") == [warning("***")]
    for texts in (["xyz"], ["wxyz", "xyz"], []):
        with pytest.raises(RecoveryRefusedError, match="at least 4 characters"):
            redact(tmp_path / "a", tmp_path / "c", texts=texts)


def test_keys_and_hosts_are_texts_too(tmp_path: Path) -> None:
    """In maps and lists, however deep, and in the header; numbers of events and other events stay."""
    started = ExperimentStarted(
        experiment_id="e",
        plan={"node-a": [{"x": "on node-a"}, 5]},
        measurement_config_hash="h",
        expected_processes=1,
        llem_version="0",
    )
    same = warning("node-b")
    changed = msgspec.structs.replace(started, plan={"***": [{"x": "on ***"}, 5]})
    assert redacted(tmp_path, [same, started, same], "node-a") == [same, changed, same]
    with SegmentReader(tmp_path / "b") as reader, SegmentReader(tmp_path / "a") as before:
        assert reader.header is not None and before.header is not None
        assert (reader.header.host, before.header.host) == ("***", "node-a")
        assert reader.header.recovered_from == before.header.segment_id != reader.header.segment_id
        assert reader.header.redacted_digest == segment_digest(tmp_path / "a").last_digest


def test_only_events_that_change_are_counted(tmp_path: Path) -> None:
    """And a text that is in none of them leaves no file behind, nor does one that is the experiment's own name."""
    write_segment(tmp_path / "a", [[warning("word"), warning("other")], [warning("a word")]])
    done = redact(tmp_path / "a", tmp_path / "b", texts=["word"])
    assert (done.changed_events, done.kept.events, done.kept.blocks) == (2, 3, 2)
    for text, told in [("nowhere", "in none of its 3 events"), ("20260101", "the experiment's id")]:
        with pytest.raises(RecoveryRefusedError, match=told):
            redact(tmp_path / "a", tmp_path / "c", texts=[text])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_bytes_of_other_events_are_not_texts(tmp_path: Path) -> None:
    """A column of samples that happens to hold the letters stays what it was measured as."""
    body = msgspec.msgpack.encode({"planes": b"word", "note": "word"})
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    writer.append_message(message("model_melted", body), at_ns=0)
    writer.seal()
    redact(tmp_path / "a", tmp_path / "b", texts=["word"])
    with SegmentReader(tmp_path / "b") as reader:
        ((envelope,),) = (reader.events(block) for block in reader.blocks())
        assert msgspec.msgpack.decode(envelope.body) == {"planes": b"word", "note": "***"}


def test_an_event_that_cannot_be_decoded_cannot_be_searched(tmp_path: Path) -> None:
    """It holds the letters in a text that is no UTF-8; nothing is written."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    writer.append_message(message("model_melted", b"\x81\xa1a\xa5word\xff"), at_ns=0)
    writer.seal()
    with pytest.raises(CorruptError, match="model_melted cannot be decoded"):
        redact(tmp_path / "a", tmp_path / "b", texts=["word"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_segment_without_a_header_is_refused(tmp_path: Path) -> None:
    """Nothing is written in its place."""
    write_segment(tmp_path / "a", [[warning("secret")]])
    (tmp_path / "torn").write_bytes((tmp_path / "a").read_bytes()[:20])
    with pytest.raises(RecoveryRefusedError, match="its header is lost"):
        redact(tmp_path / "torn", tmp_path / "b", texts=["secret"])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("role", ["sampler", "worker"])
def test_a_copy_is_packed_as_though_the_text_had_never_been_there(tmp_path: Path, role: str) -> None:
    """As tightly as this role packs."""
    packed = {}
    for text in ("node-b", "***"):
        writer = SegmentWriter(tmp_path / text, segment_header(role=role), sync="close")
        for number in range(500):
            writer.append(warning(f"{number**5} of {text}"), at_ns=1)
        packed[text] = writer.seal()
    copy = redact(tmp_path / "node-b", tmp_path / "copy", texts=["node-b"]).kept
    assert copy.compressed_bytes == packed["***"].compressed_bytes
