"""llem log, driven from outside."""

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llem_events import SegmentReader, SegmentWriter, Verdict
from llem_events.events import ResultImported, WarningRaised
from tests.conftest import LIMIT_S, LLEM, Run, read_as_anybody
from tests.log.segments import layout, read_segment, segment_header, small_events, write_segment

RUN = "20260101-000000-abcdef"
GOLDEN = Path(__file__).parent / "golden" / "schema-1"


@pytest.fixture
def run_folder(store: Path) -> Path:
    """The folder of one run in a store."""
    folder = store / "log" / RUN
    folder.mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def segment(run_folder: Path) -> Path:
    """A clean segment of that run."""
    path = run_folder / "a.events.zst"
    write_segment(path)
    return path


def flip(path: Path, place: Callable[[Any], int]) -> None:
    """Change one bit of a segment."""
    at, data = place(layout(path)), bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_verify_names_each_verdict(llem: Run, run_folder: Path, segment: Path) -> None:
    """Clean, unclosed and torn segments pass, each by its name."""
    write_segment(run_folder / "b.events.zst", sealed=False, segment_id=b"b" * 16)
    torn = run_folder / "c.events.zst"
    write_segment(torn, sealed=False, segment_id=b"c" * 16)
    torn.write_bytes(torn.read_bytes()[:-5])
    done = llem("log", "verify", "@last")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "] == [
        "clean",
        "unclosed",
        "torn",
    ]
    assert llem("log", "verify").stdout == done.stdout
    assert llem("log", "verify", run_folder).stdout == done.stdout


def test_verify_says_what_is_corrupt(llem: Run, segment: Path) -> None:
    """A changed byte gives status 3, its file, the byte range, and the block and events that are missing."""
    places = layout(segment)
    flip(segment, lambda places: places.block_edges[1] + 150)
    done = llem("log", "verify", RUN[:8], "--json")
    found = json.loads(done.stdout)
    (damage,) = found["damages"]
    assert (done.returncode, found["verdict"], found["path"]) == (3, "corrupt", str(segment))
    assert (damage["offset"], damage["end"]) == (places.block_edges[1], places.block_edges[2])
    assert [damage[name] for name in ("first_block", "next_block", "first_event", "next_event")] == [
        1,
        2,
        1,
        3,
    ]
    spoken = llem("log", "verify", segment)
    assert spoken.returncode == 3
    assert f"bytes {damage['offset']} to {damage['end']}" in spoken.stdout
    assert "2 events from 1" in spoken.stdout


def test_verify_tells_a_segment_in_the_wrong_folder(llem: Run, store: Path, segment: Path) -> None:
    """A copy in another run's folder is damage of that run, by the names of both; in a folder outside of a log it is none."""
    other = store / "log" / "20260101-000001-abcdef"
    other.mkdir()
    shutil.copy(segment, other / "copy.events.zst")
    done = llem("log", "verify")
    assert done.returncode == 3
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "] == ["clean", "misplaced"]
    assert f"names experiment '{RUN}', its folder is '{other.name}'" in done.stdout
    assert llem("log", "verify", GOLDEN / "samples.events.zst").returncode == 0


@pytest.mark.parametrize("change", [{"schema_version": 99}, {"role": "judge"}])
def test_verify_and_info_tell_what_is_newer(llem: Run, run_folder: Path, change: dict[str, Any]) -> None:
    """A log of a later schema, or with a word of a later llem, is newer with status 2 and what to do: no damage."""
    path = run_folder / "a.events.zst"
    SegmentWriter(path, segment_header(**change), sync="close").seal()
    for command in ("verify", "info"):
        done = llem("log", command, RUN)
        assert (done.returncode, "newer" in done.stdout, "upgrade llem" in done.stdout) == (2, True, True)
        assert "corrupt" not in done.stdout + done.stderr
    assert json.loads(llem("log", "verify", "--json").stdout)["verdict"] == "newer"


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_verify_goes_on_past_what_it_may_not_read(
    environment: dict[str, str], store: Path, segment: Path, closed: str
) -> None:
    """A folder or a file of another user has status 2 and the command that mends it; the other runs are verified."""
    other = store / "log" / "20260101-000001-abcdef"
    other.mkdir()
    write_segment(other / "b.events.zst", segment_id=b"b" * 16)
    theirs = other if closed == "folder" else other / "b.events.zst"
    theirs.chmod(0)
    (store / "log" / "con").mkdir()
    done = subprocess.run(
        [LLEM, "log", "verify"],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=read_as_anybody,
        check=False,
    )
    theirs.chmod(0o700)
    assert done.returncode == 2
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"clean", "unreadable"}
    assert f"sudo chown -R {os.getuid()} {theirs}" in done.stdout
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        f"{store / 'log' / 'con'}: left out, its name is no id of an experiment"
    ]


@pytest.mark.parametrize("name", ["missing.events.zst", "fifo.events.zst", "link.events.zst"])
def test_verify_of_what_cannot_be_read(llem: Run, tmp_path: Path, name: str) -> None:
    """A missing file, a pipe or a link is named in one line, with status 2 and without a traceback."""
    os.mkfifo(tmp_path / "fifo.events.zst")
    (tmp_path / "link.events.zst").symlink_to(GOLDEN / "samples.events.zst")
    done = llem("log", "verify", tmp_path / name)
    assert done.returncode == 2
    assert str(tmp_path / name) in done.stdout
    assert "Traceback" not in done.stderr


def test_recover_writes_a_new_file_and_a_report(llem: Run, segment: Path, tmp_path: Path) -> None:
    """What verifies is copied and sealed, the original stays, what was cut is said, and loss has status 3."""
    flip(segment, lambda places: places.block_edges[1] + 150)
    before, new = segment.read_bytes(), tmp_path / "new.events.zst"
    refused = llem("log", "recover", segment, "-o", new, "--limit", "10")
    assert (refused.returncode, new.exists(), refused.stdout) == (1, False, "")
    assert "expected at most 10" in refused.stderr
    done = llem("log", "recover", segment, "-o", new, "--limit", "10", "--force", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["blocks"], report["events"]) == (3, 2, 3)
    assert [cut["first_block"] for cut in report["cut"]] == [1]
    assert segment.read_bytes() == before
    outcome = read_segment(new)
    assert (outcome.verdict, len(outcome.events)) == (Verdict.CLEAN, 3)
    with SegmentReader(new) as reader:
        assert reader.header is not None
        lost = (reader.header.skipped_bytes, reader.header.skipped_blocks, reader.header.skipped_events)
    assert lost == (report["lost_bytes"], 1, 2)
    told = llem("log", "verify", new)
    assert (told.returncode, "1 block and 2 events of the original are not in it" in told.stdout) == (
        0,
        True,
    )
    again = llem("log", "recover", segment, "-o", new)
    assert (again.returncode, "never written twice" in again.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["new.events.zst"]


def test_recover_of_a_torn_segment_loses_nothing(llem: Run, segment: Path, tmp_path: Path) -> None:
    """An incomplete write was never acknowledged: cutting it has status 0."""
    edge = layout(segment).block_edges[3]
    segment.write_bytes(segment.read_bytes()[: edge - 5])
    done = llem("log", "recover", segment, "-o", tmp_path / "new.events.zst")
    assert done.returncode == 0
    assert f"to {edge - 5}" in done.stdout
    assert len(read_segment(tmp_path / "new.events.zst").events) == 3


@pytest.mark.parametrize("place", ["no/such/folder/new.events.zst", "a.events.zst/new.events.zst"])
def test_recover_to_an_impossible_place_fails(llem: Run, segment: Path, place: str) -> None:
    """A folder that is missing, or is a file, is said in one line."""
    done = llem("log", "recover", segment, "-o", segment.parent / place)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


SECRET = 'päss"wörd/1'


def test_redact_writes_a_segment_without_the_text(llem: Run, run_folder: Path, tmp_path: Path) -> None:
    """The text is gone from texts, keys and imported files, the numbers of events stay, and the old file is as it was and named."""
    path, new, word = run_folder / "a.events.zst", run_folder / "b.events.zst", tmp_path / "word"
    word.write_text(SECRET + "\n", encoding="utf-8")
    document = json.dumps({"note": SECRET}).encode()
    imported = ResultImported(format="f", file_name="n", file_sha256="0", original=document)
    written = write_segment(
        path, [[WarningRaised(code="c", text=f"a {SECRET} b")], [imported], small_events()[1]]
    )
    before = path.read_bytes()
    digest = json.loads(llem("log", "digest", "--json").stdout)["segments"][0]["last_digest"]
    done = llem("log", "redact", path, "-o", new, "--text-file", word, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["changed_events"], report["original_digest"]) == (0, 2, digest)
    assert SECRET not in done.stdout + done.stderr
    assert path.read_bytes() == before
    outcome = read_segment(new)
    assert outcome.verdict is Verdict.CLEAN
    kept = [event for _, event in outcome.events.values()]
    assert [kept[0].text, json.loads(kept[1].original)] == ["a *** b", {"note": "***"}]  # type: ignore[attr-defined]
    assert kept[2:] == [event for _, event in written[2:]]
    with SegmentReader(new) as reader:
        assert reader.header is not None and reader.header.redacted_digest == bytes.fromhex(digest)
    path.unlink()
    assert llem("log", "verify").returncode == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [("nowhere", "in none of its"), ("abc", "at least 4 characters"), (RUN, "experiment's id")],
)
def test_redact_refuses_what_it_cannot_do(llem: Run, segment: Path, text: str, told: str) -> None:
    """A text that is nowhere, so short that it is everywhere, or the run's own id, is refused, and nothing is left behind."""
    done = llem("log", "redact", segment, "-o", segment.parent / "b.events.zst", "--text", text)
    assert (done.returncode, told in done.stderr) == (2, True)
    assert [path.name for path in segment.parent.iterdir()] == ["a.events.zst"]


def test_redact_refuses_a_damaged_segment(llem: Run, segment: Path) -> None:
    """What cannot be read cannot be searched for the text."""
    flip(segment, lambda places: places.block_edges[1] + 150)
    done = llem("log", "redact", segment, "-o", segment.parent / "b.events.zst", "--text", "xxxx")
    assert (done.returncode, len(list(segment.parent.iterdir()))) == (3, 1)


def test_verify_tells_a_writer_at_work(llem: Run, run_folder: Path) -> None:
    """An unclosed segment is not taken for a crash while its writer lives."""
    writer = SegmentWriter(run_folder / "a.events.zst", segment_header())
    assert "its writer is at work" in llem("log", "verify").stdout
    writer.close()
    assert "its writer is at work" not in llem("log", "verify").stdout


def test_recover_without_a_header_fails(llem: Run, tmp_path: Path) -> None:
    """Without the segment's id nothing can be verified, and that is said."""
    path = tmp_path / "a.events.zst"
    write_segment(path)
    flip(path, lambda places: 40)
    done = llem("log", "recover", path, "-o", tmp_path / "new.events.zst", "--force")
    assert (done.returncode, "header is lost" in done.stderr) == (1, True)


def test_cat_prints_json_lines(llem: Run, segment: Path) -> None:
    """One object a line, samples as columns with their gaps, and only the type that was asked for."""
    lines = [json.loads(line) for line in llem("log", "cat", "@last", "--json").stdout.splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3, 4]
    samples = lines[1]["body"]["samples"]
    assert (len(samples["at_ns"]), samples["power_mw"][-1]) == (41, None)
    chosen = llem("log", "cat", "--type", "window_opened", segment).stdout.splitlines()
    assert len(chosen) == 1
    assert "window_opened" in chosen[0]


def test_cat_keeps_unknown_types(llem: Run) -> None:
    """Events of a later llem are printed with all their fields."""
    done = llem("log", "cat", "--json", GOLDEN / "unclosed.events.zst")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "model_melted"
    assert lines[2]["body"]["advice"] == ["cool", {"to_c": 60}]


def test_cat_of_a_damaged_segment(llem: Run, segment: Path) -> None:
    """Events before the damage are printed, then status 3; with --salvage those after it as well."""
    flip(segment, lambda places: places.block_edges[1] + 150)
    refused = llem("log", "cat", "--json", segment)
    assert (refused.returncode, len(refused.stdout.splitlines())) == (3, 1)
    assert len(refused.stderr.splitlines()) == 1
    salvaged = llem("log", "cat", "--json", "--salvage", segment)
    assert (salvaged.returncode, len(salvaged.stdout.splitlines())) == (0, 3)
    assert "missing: 1 block from 1" in salvaged.stderr


def test_follow_ends_with_the_writer(environment: dict[str, str], run_folder: Path) -> None:
    """Each event is printed once it is flushed, and the command ends when the writer has."""
    writer = SegmentWriter(run_folder / "a.events.zst", segment_header())
    with subprocess.Popen(
        [LLEM, "log", "cat", "--follow", "--json", RUN], env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for text in ("first", "second"):
            writer.append(WarningRaised(code="sample_gap", text=text))
            writer.flush()
            assert json.loads(child.stdout.readline())["body"]["text"] == text
        writer.seal()
        assert child.stdout.read() == ""
        assert child.wait(LIMIT_S) == 0


def test_info_and_digest(llem: Run, segment: Path, run_folder: Path) -> None:
    """Counts, sizes and ratio; and a root digest that any added or changed segment changes."""
    found = json.loads(llem("log", "info", segment, "--json").stdout)
    assert found["events_by_type"] == {
        f"samples_taken {found_version(found)}": 1,
        "warning_raised 1": 2,
        "window_closed 1": 1,
        "window_opened 1": 1,
    }
    assert "  window_closed, version 1\n" in llem("log", "info", segment).stdout
    assert found["ratio"] == pytest.approx(found["raw_bytes"] / found["compressed_bytes"])
    first = llem("log", "digest", RUN).stdout
    assert first.split()[1] == RUN
    segment.rename(run_folder / "other-name.events.zst")
    assert llem("log", "digest").stdout == first
    write_segment(run_folder / "more.events.zst", segment_id=b"m" * 16)
    assert llem("log", "digest").stdout != first
    shutil.copy(run_folder / "more.events.zst", run_folder / "twice.events.zst")
    assert llem("log", "digest").returncode == 3


def test_digest_of_what_is_not_there_is_no_digest(llem: Run, run_folder: Path) -> None:
    """A run without a segment has no digest that could be published."""
    done = llem("log", "digest", RUN)
    assert (done.returncode, done.stdout, "no segment" in done.stderr) == (2, "", True)


def found_version(found: dict[str, Any]) -> int:
    """The version of samples that is written today."""
    return next(int(name.split()[1]) for name in found["events_by_type"] if name.startswith("samples_taken"))


def test_no_text_drives_the_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    """Escape sequences in events reach a pipe as JSON and never a terminal."""
    path = tmp_path / "a.events.zst"
    write_segment(path, [[WarningRaised(code="sample_gap", text="\x1b[31mred\x9b2J")]])
    ours, theirs = pty.openpty()
    subprocess.run([LLEM, "log", "cat", path], env=environment, stdout=theirs, check=True)
    shown = os.read(ours, 10_000)
    os.close(theirs)
    os.close(ours)
    assert "red" in shown.decode()
    assert "\x1b" not in shown.decode()
    assert "\x9b" not in shown.decode()


@pytest.mark.parametrize("program", ["zstd", "zstdcat"])
def test_other_programs_read_a_segment(program: str) -> None:
    """zstd tests every segment, and zstdcat prints its bare msgpack stream."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    path = GOLDEN / "every_event.events.zst"
    arguments = [program, "-t", "-q", path] if program == "zstd" else [program, path]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    if program == "zstdcat":
        assert done.stdout.count(b"window_opened") == 1
