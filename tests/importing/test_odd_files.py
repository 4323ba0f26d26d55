"""Files in which something is odd: each is refused in one line, or becomes events that a log can hold."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.errors import LlemError
from llem.importing import understand
from llem_events import envelope
from llem_events.events import ResultImported
from tests.importing.files import FILES, FORMATS, asked, content

CELLS = [
    b"",
    b"-1",
    b"0",
    b"nan",
    b"1e999",
    b"9" * 25,
    b"[]",
    b"{}",
    b"null",
    b'"x"',
    b"true",
    b",",
    b"\n",
    b"\xff\x00",
    b"N/A",
]


# Share of the file at which so many bytes are cut out, and what is put in their place.
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from([0, 1, 3, 10, 200]),
        st.one_of(st.sampled_from(CELLS), st.binary(max_size=4)),
    ),
    max_size=3,
)


def changed(original: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """With a few places in which something else stands."""
    written = bytearray(original)
    for share, cut, put in changes:
        at = round(share * len(written))
        written[at : at + cut] = put
    return bytes(written)


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_refused_or_understood(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """There is no other way."""
    path = tmp_path_factory.mktemp("odd") / Path(name).name
    original = content(name)

    @settings(max_examples=10 if len(original) > 20_000 else 20, deadline=None)
    @given(CHANGES)
    def check(changes: list[tuple[float, int, bytes]]) -> None:
        path.write_bytes(changed(original, changes))
        try:
            file = understand(path, file_format=FILES[name], asked=asked(name))
        except LlemError as error:
            assert "\n" not in str(error)
            return
        kept = ResultImported(format=file.format, file_name="x", file_sha256="0" * 64, original=b"")
        for run in file.runs:
            for at_ns, event in run.events(kept, experiment_id="x"):
                envelope.pack(event, at_ns)

    check()


@pytest.mark.parametrize("year", ["0001", "1826", "2126", "9999"])
@pytest.mark.parametrize("name", FILES)
def test_no_run_is_of_another_century(name: str, year: str, tmp_path: Path) -> None:
    """A log holds no such times: they are refused, whether the file or the command line says them."""
    path = tmp_path / Path(name).name
    path.write_bytes(re.sub(rb"\b20[12]\d(?=[-/:T])|(?<=[-/])20[12]\d\b", year.encode(), content(name)))
    told = asked(name)
    if told.start is not None:
        told = msgspec.structs.replace(told, start=told.start.replace("2026", year))
    try:
        runs = understand(path, file_format=FILES[name], asked=told).runs
    except LlemError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return
    assert all(2000 <= run.began.year <= 2100 for run in runs if run.clocks is not None)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".gz")])
def test_a_compressed_file_is_refused_with_what_to_do(name: str) -> None:
    """What it holds is not printed."""
    with pytest.raises(LlemError, match=r"found a compressed file.*unpack it first"):
        understand(FORMATS / name)
