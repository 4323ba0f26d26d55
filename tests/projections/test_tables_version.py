"""Digests of sources: any change of what makes the tables is seen, and nothing else is."""

from pathlib import Path

import pytest

from llem.projections import tables_version
from llem.projections.tables_version import _code, _digest, _named


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Three files in two folders, two of the same name."""
    files = [
        tmp_path / "derive" / "rows.py",
        tmp_path / "results" / "rows.py",
        tmp_path / "results" / "a.sql",
    ]
    for number, path in enumerate(files):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text {number}")
    return files


def test_a_digest_is_of_names_folders_and_contents(sources: list[Path]) -> None:
    """Whatever the order in which they are found, and wherever the program stands."""
    before = _digest(sources)
    assert len(before) == 64 and _digest(sources[::-1]) == before
    elsewhere = sources[0].parents[1].rename(sources[0].parents[2] / "zz elsewhere")
    moved = [elsewhere / path.parent.name / path.name for path in sources]
    assert _digest(moved) == before
    moved[0].write_text("text 1")
    moved[1].write_text("text 0")
    assert _digest(moved) != before
    moved[0].write_text("text 0")
    moved[1].write_text("text 1")
    assert _digest(moved) == before
    assert _digest(moved[:2]) != before
    assert _digest([*moved[:2], moved[2].rename(moved[2].with_name("b.sql"))]) != before


def test_code_is_what_a_program_runs(sources: list[Path]) -> None:
    """Modules, compiled ones too, and SQL; of a folder some by their names."""
    folder = sources[1].parent
    for name in ("rows.pyc", "rows.txt", "other.py"):
        (folder / name).write_text("")
    assert {path.name for path in _code(folder)} == {"rows.py", "rows.pyc", "a.sql", "other.py"}
    assert {path.name for path in _named({folder: "rows a b"})} == {"rows.py", "rows.pyc", "a.sql"}


def test_what_decodes_and_what_derives_have_digests_of_their_own() -> None:
    """What is of both kinds counts as decoding; defaults of the plan are part of what figures mean."""
    found = tables_version.tables_version()
    decoding = set(_named(tables_version.DECODING))
    deriving = {path for folder in tables_version.DERIVING for path in _code(folder)} - decoding
    (plan,) = (path for path in _named(tables_version.PLAN) if path.suffix == ".py")
    assert found.log == _digest(decoding) and found.derived == _digest({*deriving, plan})
    assert found.derived not in (found.log, _digest(deriving))
