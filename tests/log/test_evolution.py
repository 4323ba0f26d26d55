"""Golden segments of every schema version, the published schema, and what is not known yet."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem_events import SCHEMA_VERSION, SegmentReader, Verdict, publish_schema, survey
from llem_events.events import EVENT_TYPES
from llem_events.upcast import KNOWN_VERSIONS, STEPS
from tests.log import independent_reader
from tests.log.golden import generate

NOT_KNOWN = "advice"  # a field in a golden segment that no Struct has
GOLDEN = sorted(generate.FOLDER.glob("schema-*/*.events.zst"))


def expected_rows(path: Path) -> dict[str, Any]:
    """What every reader must find in a golden segment."""
    rows: dict[str, Any] = json.loads(
        path.with_name(path.name.replace(".events.zst", ".json")).read_text("utf-8")
    )
    return rows


def golden_id(path: Path) -> str:
    """Name of a golden segment in a test's name."""
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", GOLDEN, ids=golden_id)
def test_golden_segments_read_the_same_for_ever(path: Path) -> None:
    """A segment of any earlier schema version gives the rows that it was written with."""
    expected = expected_rows(path)
    assert generate.rows(path) == expected
    for event in expected["events"]:
        event["body"] = {key: part for key, part in event["body"].items() if key != NOT_KNOWN}
    assert generate.rows(path, generate.body_as_understood) == expected


def test_every_known_version_has_a_golden_segment() -> None:
    """No event type or version can be added without an example that stays."""
    seen = {(row["type"], row["version"]) for path in GOLDEN for row in expected_rows(path)["events"]}
    assert seen >= set(KNOWN_VERSIONS)
    assert {f"schema-{version}" for version in range(1, SCHEMA_VERSION + 1)} == {
        path.parent.name for path in GOLDEN
    }


def test_todays_golden_segments_are_what_the_generator_writes(tmp_path: Path) -> None:
    """The generator still writes the rows that it wrote; after a change run `python -m tests.log.golden.generate`."""
    for name, blocks in generate.segments().items():
        path = tmp_path / f"{name}.events.zst"
        sealed = name in ("every_event", "samples")
        generate.write(path, blocks, sealed=sealed, cut_bytes=10 if name == "torn" else 0)
        assert generate.rows(path) == expected_rows(generate.TODAY / path.name)


def test_versions_are_chained_to_todays() -> None:
    """Every retired version has a step to the next one, and every chain ends at an event that is written today."""
    today = {event.TYPE: event.VERSION for event in EVENT_TYPES}
    assert len(today) == len(EVENT_TYPES)
    for name, newest in today.items():
        assert {version for known, version in KNOWN_VERSIONS if known == name} == set(range(1, newest + 1))
    assert {event.TYPE for event in STEPS} <= set(today)


def test_the_published_schema_is_todays() -> None:
    """events/schema holds every event version; where it is stale, run `python -m llem_events.publish_schema`."""
    published = {path.name: path.read_text("utf-8") for path in publish_schema.FOLDER.glob("*.json")}
    stale = sorted({name for name, _ in published.items() ^ publish_schema.documents().items()})
    assert not stale, f"{', '.join(stale)}: run `python -m llem_events.publish_schema`"


def test_the_schemas_are_written_by_a_program_of_their_own(tmp_path: Path) -> None:
    """`python -m llem_events.publish_schema FOLDER`."""
    subprocess.run([sys.executable, "-m", "llem_events.publish_schema", tmp_path / "new"], check=True)
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "new").iterdir()}
    assert written == publish_schema.documents()


def test_a_schema_is_the_same_whichever_python_wrote_it() -> None:
    """A text has no indentation and stays as it is, null is the last choice, and names are in the order of the alphabet."""

    class Odd(msgspec.Struct):
        """Of Ångström.

        And more.
        """

        size: int | None = None
        kind: int = 0

    definition: dict[str, Any] = {
        "description": "first\n    second",
        "properties": {
            "kind": {"type": "integer"},
            "size": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        },
    }
    publish_schema._clean(definition)
    assert definition["description"] == "first\nsecond"
    assert definition["properties"]["size"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    text = publish_schema._document("odd-1", Odd)
    assert '"Of Ångström.\\n\\nAnd more."' in text and text.endswith("}\n")
    assert text.index('"kind"') < text.index('"size"') and json.loads(text)["title"] == "odd-1"


def test_unknown_events_are_kept_and_counted() -> None:
    """A type or version of a later llem is neither refused nor lost."""
    path = next(path for path in GOLDEN if path.name.startswith("unclosed"))
    found = survey(path)
    assert (found.verdict, found.events, found.unknown_events, found.misfits) == (Verdict.UNCLOSED, 3, 2, 0)
    assert found.events_by_type == {
        ("model_melted", 1): 1,
        ("window_opened", 99): 1,
        ("warning_raised", 1): 1,
    }


def test_a_golden_segment_is_a_zstd_file() -> None:
    """Golden segments start with a skippable frame and hold zstd frames, whoever reads them."""
    for path in GOLDEN:
        with SegmentReader(path) as reader:
            assert all(block.payload.startswith(b"\x28\xb5\x2f\xfd") for block in reader.blocks())


@pytest.mark.parametrize("path", GOLDEN, ids=golden_id)
def test_a_reader_written_from_the_format_alone_finds_the_same(path: Path) -> None:
    """FORMAT.md is complete: 150 lines that import nothing of ours decode every golden segment to the same rows."""
    assert independent_reader.read_segment(path) == expected_rows(path)


def test_the_independent_reader_is_small_and_independent() -> None:
    """At most 150 lines, and only the standard library, zstandard and msgpack."""
    lines = Path(independent_reader.__file__).read_text("utf-8").splitlines()
    imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert len(lines) <= 150
    assert imported - {"msgpack", "zstandard"} <= sys.stdlib_module_names
