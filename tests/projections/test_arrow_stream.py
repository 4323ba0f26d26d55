"""Columns as Arrow's C interface gives them to whoever asks."""

import ctypes

import pyarrow as pa
import pytest

from llem.projections import arrow_stream


@pytest.mark.parametrize("kind", ["schema", "array", "stream"])
def test_what_is_released_says_so(kind: str) -> None:
    """As the interface has it: its release is none then, and nothing is kept for it."""
    structures = {
        "schema": arrow_stream._Schema,
        "array": arrow_stream._Array,
        "stream": arrow_stream._Stream,
    }
    release = getattr(arrow_stream, f"_release_{kind}")
    before = set(arrow_stream._kept)
    given = structures[kind](release=release, private_data=arrow_stream._keep("an owner"))
    assert set(arrow_stream._kept) != before and given.release
    given.release(ctypes.pointer(given))
    assert set(arrow_stream._kept) == before and not given.release


def test_another_reader_of_arrow_finds_what_was_given() -> None:
    """Every kind of cells, with what is missing, in two batches; names, types and buffers hold Arrow's own check."""
    given = {
        "integers": (arrow_stream.integers([1, None, 2**62]), "int64", [1, None, 2**62]),
        "doubles": (arrow_stream.doubles([0.5, None, 2.0]), "double", [0.5, None, 2.0]),
        "texts": (arrow_stream.texts(["a", None, "é"]), "string", ["a", None, "é"]),
        "repeated": (arrow_stream.repeated(["a", "b"], [2, 1]), "string", ["a", "a", "b"]),
        "lists": (arrow_stream.lists([[1, None], None, []]), "list<item: int64>", [[1, None], None, []]),
    }
    batch = {name: cells for name, (cells, _, _) in given.items()}
    columns = {name: cells.schema for name, cells in batch.items()}
    with arrow_stream.ArrowStream(columns, [batch, batch]) as stream:
        table = pa.RecordBatchReader.from_stream(stream).read_all()
    table.validate(full=True)
    for name, (_, kind, values) in given.items():
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        assert (str(column.type), column.to_pylist()) == (kind, 2 * values)
