"""Events as plain rows, and texts as they are kept."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem_events import Envelope, Reading, SegmentWriter, columns, envelope, survey
from llem_events.cleaning import MAX_TEXT, clean, clean_text, scrub_json, shortened
from llem_events.events import Event, ExperimentStarted, StudyPlace, WarningRaised
from llem_events.inspection import plain, readable_row
from tests.log.forged import message
from tests.log.segments import segment_header
from tests.world import request


def row_of(event: Event) -> dict[str, Any]:
    """The row of an event that was written at 5."""
    (found,) = envelope.unpack_all(envelope.pack(event, 5), 1, offset=0)
    return readable_row(found, 7)


def test_a_row_names_everything_of_an_event() -> None:
    """Number, time, type, version and body."""
    assert row_of(WarningRaised(code="c", text="t")) == {
        "number": 7,
        "at_ns": 5,
        "type": "warning_raised",
        "version": 1,
        "body": {"code": "c", "text": "t"},
    }


def test_samples_are_shown_as_columns() -> None:
    """Values that were not measured are null, columns that never were are left out."""
    readings = [Reading(at_ns=1, power_mw=5), Reading(at_ns=2), Reading(at_ns=4, power_mw=6)]
    row = row_of(columns.pack(readings, meter="m", device_uuid="d"))
    samples = {"at_ns": [1, 2, 4], "power_mw": [5, None, 6]}
    assert row["version"] == 2
    assert row["body"] == {"meter": "m", "device_uuid": "d", "count": 3, "samples": samples}


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("warning_raised", msgspec.msgpack.encode({"code": 5}), "warning_raised version 1"),
        ("model_melted", msgspec.msgpack.encode("x" * 2**20), "over 1048576 bytes is not decoded"),
    ],
)
def test_a_body_that_cannot_be_shown_is_shown_as_bytes(kind: str, body: bytes, told: str) -> None:
    """With what is wrong with it."""
    row = readable_row(Envelope(kind, 1, 0, msgspec.Raw(body)), 0)
    assert (told in row["problem"], row["body"]) == (True, {"hex": body.hex()})


def test_what_json_has_not_is_written_in_what_it_has() -> None:
    """Bytes as hexadecimal, other keys as text, anything else as Python writes it; the rest stays."""
    given = {1: b"\xff", "a": [None, True, 2, 0.5, "x"], "b": {"c": b""}, "d": msgspec.msgpack.Ext(1, b"z")}
    found = plain(given)
    assert found["1"] == {"hex": "ff"} and found["a"] == given["a"] and found["b"] == {"c": {"hex": ""}}
    assert "Ext" in found["d"] and json.dumps(found)


def test_texts_are_cut_over_their_limit() -> None:
    """65,536 characters stay, of more the first and how many there were; what must not be cut never is."""
    whole, longer = "-" * MAX_TEXT, "-" * (MAX_TEXT + 1)
    assert MAX_TEXT == 65_536
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc ... (cut, 4 characters)"
    assert clean_text(whole) is whole
    assert clean_text(longer) == f"{whole} ... (cut, 65537 characters)"
    assert clean_text(longer, whole=True) is longer


def test_an_event_is_cleaned_however_deep_a_text_stands() -> None:
    """Texts in lists and maps are cut and lose their secrets; a plan, a command and a cell keep their length."""
    longer, token = "-" * (MAX_TEXT + 1), "hf_" + "aB3dE5gH7jK9" * 3
    event = ExperimentStarted(
        experiment_id="e\ud800",
        plan={"a": [longer, {"b": token}]},
        measurement_config_hash="h",
        expected_processes=1,
        labels={"c": longer},
        command=["run", "--token", "abc"],
        llem_version="0",
        study=StudyPlace(study_id="s", cell_index=0, cell={"a": longer}, block=0, position=0),
    )
    kept = clean(event)
    assert kept.plan == {"a": [longer, {"b": "***"}]}
    assert kept.study is not None and kept.study.cell == {"a": longer}
    assert (kept.labels, kept.command) == ({"c": longer}, ["run", "--token", "***"])
    assert kept.experiment_id == "e\\ud800"
    assert clean(kept) == kept
    same = WarningRaised(code="c", text="t")
    assert clean(same) is same


def test_a_prompt_and_its_output_keep_their_length() -> None:
    """An error does not."""
    longer = "-" * (MAX_TEXT + 1)
    kept = clean(request(0, 1.0, prompt=longer, output=longer, error=longer))
    assert kept.prompt == kept.output == longer
    assert kept.error == f"{longer[:-1]} ... (cut, 65537 characters)"


def test_a_document_without_secrets_keeps_its_bytes() -> None:
    """Others are written anew, and what is no JSON is scrubbed as a text."""
    token = "hf_" + "aB3dE5gH7jK9" * 3
    for document in (b'{ "a" : 1 }', b"no json"):
        assert scrub_json(document) == document
    assert (
        scrub_json(json.dumps({"a": [token], "password": "x"}).encode()) == b'{"a":["***"],"password":"***"}'
    )
    assert scrub_json(f"not json: {token}".encode()) == b"not json: ***"
    assert scrub_json(f"not even text: {token} ".encode() + b"\xff") == "not even text: *** \ufffd".encode()


def test_a_survey_names_ten_misfits_and_counts_all(tmp_path: Path) -> None:
    """Each with its number; so are events of types that nobody knows."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    for _ in range(12):
        writer.append_message(message("warning_raised", msgspec.msgpack.encode({"code": 5})), at_ns=0)
    writer.append_message(message("model_melted", b"\x80"), at_ns=0)
    writer.seal()
    found = survey(tmp_path / "a")
    assert (found.events, found.misfits, found.unknown_events) == (13, 12, 1)
    assert [text.partition(":")[0] for text in found.misfit_texts] == [f"event {n}" for n in range(10)]
    assert found.events_by_type == {("warning_raised", 1): 12, ("model_melted", 1): 1}
