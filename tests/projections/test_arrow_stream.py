"""Columns as Arrow's C interface gives them to whoever asks."""

import ctypes

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
