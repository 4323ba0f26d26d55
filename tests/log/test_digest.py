"""The digest that stands for all segments of an experiment."""

from dataclasses import replace
from pathlib import Path

import pytest

from llem_events import CorruptError
from llem_events.inspection import SegmentDigest, root_digest, segment_digest
from tests.log.segments import layout, write_segment


def digest_of(path: Path, letter: bytes, *, sealed: bool = True) -> SegmentDigest:
    """The digest of a new segment whose id is sixteen times a letter."""
    write_segment(path, sealed=sealed, segment_id=letter * 16)
    return segment_digest(path)


def test_a_segments_digest_counts_what_verifies(tmp_path: Path) -> None:
    """Id, blocks, events, and whether there is a seal; a file torn before its first content has no id."""
    whole, open_ended = digest_of(tmp_path / "a", b"a"), digest_of(tmp_path / "b", b"b", sealed=False)
    assert (whole.segment_id, whole.blocks, whole.events, whole.is_sealed) == (b"a" * 16, 3, 5, True)
    assert (open_ended.segment_id, open_ended.is_sealed) == (b"b" * 16, False)
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes()[: layout(tmp_path / "a").header_end - 1])
    torn = segment_digest(tmp_path / "c")
    assert (torn.segment_id, torn.blocks, torn.is_sealed) == (b"", 0, False)


def test_names_and_order_of_files_do_not_count(tmp_path: Path) -> None:
    """Nor does a file that was torn at birth."""
    first, second = digest_of(tmp_path / "a", b"a"), digest_of(tmp_path / "b", b"b")
    moved = replace(first, path=tmp_path / "z")
    torn = replace(first, segment_id=b"")
    assert root_digest([first, second]) == root_digest([second, torn, moved, torn])


@pytest.mark.parametrize(
    "change",
    [
        {"segment_id": b"c" * 16},
        {"blocks": 4},
        {"events": 6},
        {"last_digest": bytes(32)},
        {"is_sealed": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_else_counts(tmp_path: Path, change: dict[str, object]) -> None:
    """One more event, another digest or a lost seal is another root; so is a missing segment."""
    first, second = digest_of(tmp_path / "a", b"a"), digest_of(tmp_path / "b", b"b")
    whole = root_digest([first, second])
    assert root_digest([first, replace(second, **change)]) != whole  # type: ignore[arg-type]
    assert root_digest([first]) != whole


def test_one_segment_twice_has_no_root(tmp_path: Path) -> None:
    """The error names the second file."""
    first = digest_of(tmp_path / "a", b"a")
    copy = replace(first, path=tmp_path / "copy")
    with pytest.raises(CorruptError, match=r"is there twice, again as .*copy"):
        root_digest([copy, first])
