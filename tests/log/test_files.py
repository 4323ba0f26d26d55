"""The system calls of a writer and a reader, on real files."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from llem_events import SegmentReadError
from llem_events.files import OsFiles, open_segment_file


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_reserve_has_its_space_and_no_name(tmp_path: Path) -> None:
    """The bytes are the disk's as long as the descriptor is open, and no file is left behind."""
    fd = OsFiles().reserve(tmp_path, 4096)
    try:
        assert os.fstat(fd).st_size == 4096
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(fd)


def test_a_reserve_that_does_not_fit_leaves_nothing_open(tmp_path: Path) -> None:
    """More than a file can have is refused, and neither a descriptor nor a name stays."""
    before = open_descriptors()
    with pytest.raises(OSError, match=r"File too large|No space left"):
        OsFiles().reserve(tmp_path, 2**62)
    assert (open_descriptors(), list(tmp_path.iterdir())) == (before, [])


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask says; and neither an existing file nor a link is ever taken."""
    path, link = tmp_path / "a", tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    before = os.umask(0o777)
    try:
        os.close(OsFiles().create(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for taken in (path, link):
        with pytest.raises(FileExistsError):
            OsFiles().create(taken)


def test_a_name_is_never_taken_from_another_file(tmp_path: Path) -> None:
    """A rename to a file or a dangling link is refused, to a free name it moves."""
    source, taken, link = (tmp_path / name for name in ("source", "taken", "link"))
    source.write_text("new")
    taken.write_text("old")
    link.symlink_to(tmp_path / "nowhere")
    for target in (taken, link):
        with pytest.raises(FileExistsError):
            OsFiles().rename(source, target)
    OsFiles().rename(source, tmp_path / "free")
    assert ((tmp_path / "free").read_text(), taken.read_text()) == ("new", "old")


def test_a_file_system_that_counts_no_links_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says 0 of a new file already, which is then not taken for a removed one."""
    files = OsFiles()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", lambda _: SimpleNamespace(st_nlink=0))
        fd = files.create(tmp_path / "a")
        assert files.write(fd, memoryview(b"kept")) == 4
    files.close(fd)
    assert (tmp_path / "a").read_bytes() == b"kept"


def test_writing_to_a_removed_file_is_an_error(tmp_path: Path) -> None:
    """What goes to a file without a name would be lost when it is closed."""
    files = OsFiles()
    fd = files.create(tmp_path / "a")
    try:
        assert files.write(fd, memoryview(b"kept")) == 4
        (tmp_path / "a").unlink()
        for writing in (files, OsFiles()):
            with pytest.raises(OSError, match="removed"):
                writing.write(fd, memoryview(b"lost"))
    finally:
        files.close(fd)


def test_what_is_no_file_is_refused_and_closed(tmp_path: Path) -> None:
    """A folder and a link leave no descriptor open."""
    (tmp_path / "link").symlink_to(tmp_path)
    before = open_descriptors()
    for path, told in [
        (tmp_path, "not a regular file"),
        (tmp_path / "link", "a link, which is not followed"),
    ]:
        with pytest.raises(SegmentReadError, match=told):
            open_segment_file(path)
    assert open_descriptors() == before


def test_a_synced_folder_is_closed_again(tmp_path: Path) -> None:
    """Whether it could be synced or is none."""
    before = open_descriptors()
    OsFiles().sync_directory(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        OsFiles().sync_directory(tmp_path / "none")
    assert open_descriptors() == before
