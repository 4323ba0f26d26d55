"""The faults that `just mutants` draws."""

from collections.abc import Iterator
from types import CodeType

from tests.mutants import ROOMS, ROOT, mutants

ROOM_FILES = [file.relative_to(ROOT) for room in ROOMS.values() for file in (ROOT / room).rglob("*.py")]


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


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code and all that stand in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)
