"""Disks that are full and file systems that can only be read: every command that writes says in a line what cannot be written, and why."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from llem.store import Store
from tests.conftest import Run, mostly_slow
from tests.world import experiment

RUN = "20260102-030405-0123456789ab"
PLAN = (
    "[study.vary]\n'engine.batch_size' = [1, 2]\n[engine]\nname = 'simulated'\n[meter]\nname = 'simulated'\n"
)
FACTORS = (
    "[grid]\ng_per_kwh = 381\nsource = 'S'\ndate = '2025'\nbasis = 'life cycle'\nmethod = 'yearly average'\n"
)
SIMULATED = ("measure", "--engine", "simulated", "--meter", "simulated")
KIB, ROOM_KIB = 1024, 240
NEEDS_NO_ROOM = {"rm", "collect"}
# {store}: a store there; {place}: the folder there; {elsewhere}: a store that can be written
WRITING = [
    [*SIMULATED, "--store", "{store}"],
    [*SIMULATED, "--store", "{place}/new"],
    ["study", "study.toml", "--store", "{store}"],
    ["label", RUN, "a=b", "--store", "{store}"],
    ["rm", "-y", RUN, "--store", "{store}"],
    ["rebuild", "--store", "{store}"],
    ["seal", "--store", "{store}"],
    ["seal", "--to", "{place}/sealed", "--store", "{elsewhere}"],
    ["collect", "{elsewhere}", "--into", "{place}/collected"],
    ["collect", "{elsewhere}", "--into", "{store}"],
    ["import", "power.csv", "--format", "nvidia-smi", "--store", "{store}"],
    ["export", "{place}/rows.csv", "--what", "samples", "--store", "{elsewhere}"],
    ["export", "{place}/rows.parquet", "--store", "{elsewhere}"],
    ["export", "{place}/run.json", "--what", "timeline", "--store", "{elsewhere}"],
    ["export", "--bundle", "{place}/bundle", "--store", "{elsewhere}"],
    ["report", "-o", "{place}/page.html", "--store", "{elsewhere}"],
    ["report", "-o", "{page}", "--force", "--svg", "{place}/charts", "--store", "{elsewhere}"],
    ["report", "-o", "{page}", "--force", "--record", "--factors", "factors.toml", "--store", "{store}"],
    ["query", "samples", "-o", "{place}/rows.csv", "--store", "{elsewhere}"],
    ["query", "samples", "-o", "{place}/rows.parquet", "--store", "{elsewhere}"],
    ["query", "--snapshot", "{place}/tables.duckdb", "--store", "{elsewhere}"],
]
POWER = "timestamp, index, uuid, name, power.draw [W]\n" + "".join(
    f"2026/01/02 03:04:{second:02d}.000, 0, GPU-1, H100, 100.00 W\n" for second in range(30)
)

READING = [["show"], ["runs"], ["query", "samples"], ["log", "verify"]]


def names(command: list[str]) -> str:
    """As a test is called."""
    return " ".join(command)


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A file system there, which only root may mount."""
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, place], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and files that commands read."""
    folder = tmp_path_factory.mktemp("folder")
    experiment(Store(folder / "store").create(), experiment_id=RUN)
    (folder / "study.toml").write_text(PLAN)
    (folder / "factors.toml").write_text(FACTORS)
    (folder / "power.csv").write_text(POWER)
    return folder


@pytest.fixture(scope="module")
def read_only(folder: Path) -> Iterator[Path]:
    """A copy of the store where nothing can be written."""
    place = folder / "read only"
    shutil.copytree(folder / "store", place / "store")
    with mounted(place, "--bind", str(place)):
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield place


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[Path]:
    """A disk with room for little."""
    place = folder / "full"
    with mounted(place, "-t", "tmpfs", "-o", f"size={ROOM_KIB}k", "tmpfs"):
        yield place


def filled(folder: Path, small: Path, room_kib: int) -> Path:
    """The disk with a copy of the store and so much room."""
    for entry in small.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(folder / "store" / "log", small / "store" / "log")
    free = shutil.disk_usage(small).free
    (small / "ballast").write_bytes(b"x" * max(free - room_kib * KIB, 0))
    return small


def run(llem: Run, folder: Path, place: Path, command: list[str]) -> "subprocess.CompletedProcess[str]":
    """It, with the places filled in."""
    places = {
        "place": place,
        "store": place / "store",
        "elsewhere": folder / "store",
        "page": folder / "page.html",
    }
    words = [word.format(**places) for word in command]
    return llem(*(str(folder / word) if (folder / word).is_file() else word for word in words))


@pytest.mark.parametrize("command", mostly_slow(WRITING, every=3), ids=map(names, WRITING))
def test_a_file_system_that_can_only_be_read(
    command: list[str], folder: Path, read_only: Path, llem: Run
) -> None:
    """The error names the place; no fault of llem is told, and no file of its own making that the user never heard of."""
    done = run(llem, folder, read_only, command)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert (
        "Read-only file system" in said
        or "not writable" in said
        or "no permission" in said
        or "that can be written" in said
    )
    assert str(read_only) in said and "/." not in said.replace(str(read_only), "")


@pytest.mark.parametrize("command", mostly_slow(READING, every=2), ids=map(names, READING))
def test_what_can_only_be_read_is_read(command: list[str], folder: Path, read_only: Path, llem: Run) -> None:
    """Tables that cannot be kept are made for the moment."""
    shown = [llem(*command, "--store", place / "store") for place in (folder, read_only)]
    assert shown[0].returncode == shown[1].returncode == 0
    assert shown[0].stdout.replace(str(folder), "") == shown[1].stdout.replace(str(read_only), "")


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITING, ids=names)
def test_a_disk_that_is_full(command: list[str], folder: Path, small: Path, llem: Run) -> None:
    """Wherever it fills up: what is written stays whole or is none, and the error says so."""
    for room_kib in (0, 4, 8, 12, 16, 24, 32, 48, 64, 96):
        done = run(llem, folder, filled(folder, small, room_kib), command)
        said = " ".join(done.stderr.split())
        assert done.returncode in (0, 1, 2), said
        assert "internal error" not in said and "Traceback" not in said
        if done.returncode:
            assert "No space left" in said or "nearly full" in said or "not enough" in said, said
            assert str(small) in said
        else:
            assert room_kib or command[0] in NEEDS_NO_ROOM, "nothing can be written without any room"


MAKING_TABLES = [
    ["rebuild", "--store", "{store}"],
    ["query", "--snapshot", "{place}/tables.duckdb", "--store", "{store}"],
]


@pytest.mark.slow
@pytest.mark.parametrize("command", MAKING_TABLES, ids=names)
def test_tables_that_a_disk_has_too_little_room_for(
    command: list[str], folder: Path, tmp_path: Path, llem: Run
) -> None:
    """Wherever it fills up they are made whole, or not at all; those before stay, and answer."""
    place, codes, query = tmp_path / "disk", set(), ("query", "FROM samples", "-f", "csv", "--store")
    answer = llem(*query, folder / "store").stdout
    with mounted(place, "-t", "tmpfs", "-o", "size=16m", "tmpfs"):
        shutil.copytree(folder / "store" / "log", place / "store" / "log")
        llem(*query, place / "store")
        free, ballast = shutil.disk_usage(place).free, place / "ballast"
        for room_kib in (64, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192):
            ballast.write_bytes(b"x" * (free - room_kib * KIB))
            done = run(llem, folder, place, command)
            codes.add(done.returncode)
            assert done.returncode == 0 or "No space left" in done.stderr, done.stderr
            made = sorted(path.name for path in place.iterdir())
            with_copy = done.returncode == 0 and "--snapshot" in command
            assert made == sorted(["ballast", "store", *["tables.duckdb"] * with_copy])
            if with_copy:
                with duckdb.connect(place / "tables.duckdb", read_only=True) as tables:
                    assert tables.execute("SELECT count(*) FROM samples").fetchall() == [
                        (answer.count("\n") - 1,)
                    ]
                (place / "tables.duckdb").unlink()
            asked = llem(*query, place / "store")
            assert (asked.stdout, asked.stderr) == (answer, "")
    assert codes == {0, 2}


@pytest.mark.parametrize("place", ["{file}", "{file}/below"])
@pytest.mark.parametrize(
    "command",
    [
        [*SIMULATED, "--store"],
        [*SIMULATED, "--collect"],
        ["study", "study.toml", "--store"],
        ["collect", "{elsewhere}", "--into"],
        ["seal", "--store", "{elsewhere}", "--to"],
    ],
    ids=names,
)
def test_a_file_in_the_place_of_a_folder(
    command: list[str], place: str, folder: Path, tmp_path: Path, llem: Run
) -> None:
    """It is said to be one, before anything is measured."""
    file = tmp_path / "file"
    file.write_text("")
    places = {"elsewhere": folder / "store", "file": file}
    words = [word.format(**places) for word in (*command, place)]
    done = llem(*(str(folder / word) if (folder / word).is_file() else word for word in words))
    assert done.returncode == 2 and "a file in the place of a folder" in done.stderr
