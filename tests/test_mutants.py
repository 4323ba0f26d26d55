"""The faults that `just mutants` draws."""

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
