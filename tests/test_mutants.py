"""The faults that `just mutants` draws."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.mutants import LOOKED_AT, ROOMS, ROOT, mutants, put_in

ROOM_FILES = [file.relative_to(ROOT) for room in ROOMS.values() for file in (ROOT / room).rglob("*.py")]


@pytest.mark.slow
def test_every_fault_is_other_code_that_compiles() -> None:
    """In every file that has code; the rest of the file stays as it is."""
    for file in ROOM_FILES[::14]:
        original = (ROOT / file).read_bytes()
        for mutant in mutants(file):
            compile(mutant.source(), str(file), "exec")
            assert mutant.source() != original
            assert mutant.diff().count("\n") == 3


def test_a_fault_knows_the_function_around_it() -> None:
    """As the compiler names it, so that only those tests are asked that call it."""
    for file in ROOM_FILES[::14]:
        begin = {
            code.co_firstlineno for code in codes(compile((ROOT / file).read_bytes(), str(file), "exec"))
        }
        found = {mutant.function for mutant in mutants(file)}
        assert found - {None} <= begin


def test_what_cannot_matter_is_said_of_todays_code() -> None:
    """Each line in MUTANTS.md stands in the file that it names: what moved or went takes its reason along."""
    told = re.findall(r"^--- (.*)\n- (.*)\n\+ ", LOOKED_AT.read_text(), re.MULTILINE)
    lines = {path: {line.strip() for line in (ROOT / path).read_text().splitlines()} for path, _ in told}
    assert len(told) > 50
    assert [(path, line) for path, line in told if line not in lines[path]] == []


LOADED = """
import functools

def doubled(number):
    def twice():
        return 2 * number
    return twice()

class Kept:
    @functools.cached_property
    def figure(self):
        return [each + 1 for each in (1, 2)]

def closed_over(one, other):
    return lambda: one

ONE = closed_over(1, 2)
"""


def loaded(folder: Path) -> ModuleType:
    """A module of this text."""
    (folder / "loaded.py").write_text(LOADED)
    spec = importlib.util.spec_from_file_location("loaded", folder / "loaded.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("before", "after", "figures"),
    [
        ("2 * number", "2 / number", (0.5, [2, 3], 1)),
        ("each + 1", "each - 1", (8, [0, 1], 1)),
        ("return twice()", "pass", (None, [2, 3], 1)),
        ("lambda: one", "lambda: other", None),
    ],
)
def test_what_is_loaded_takes_over_the_code_of_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, figures: object
) -> None:
    """Functions within functions and in classes too; where one closes over something else it cannot."""
    monkeypatch.chdir(tmp_path)
    module = loaded(tmp_path)
    (tmp_path / "loaded.py").write_text(LOADED.replace(before, after))
    assert put_in("loaded.py", LOADED.encode()) is (figures is not None)
    if figures is not None:
        assert (module.doubled(4), module.Kept().figure, module.ONE()) == figures


def test_a_module_that_is_not_loaded_is_read_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has to be put in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unloaded.py").write_text(LOADED)
    assert put_in("unloaded.py", LOADED.encode())


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code and all that stand in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)
