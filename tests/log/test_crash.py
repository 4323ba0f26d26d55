"""Writing processes that are killed, and a model of append, flush, crash, reopen and seal."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llem_events import SegmentExistsError, SegmentReader, SegmentWriter, Verdict, recover, unpack
from llem_events.events import Event, SamplesDropped, WarningRaised, WindowOpened
from tests.log.segments import read_segment, segment_header


def test_five_kills() -> None:
    """After kill -9 at five random moments no acknowledged event is lost, and what is read back is a prefix of what was sent."""
    arguments = [sys.executable, "-m", "benchmarks.crash", "--kills", "5", "--peer-kills", "0"]
    child = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    figures = json.loads(child.stdout.splitlines()[-1])
    assert (figures["n"], figures["ours"]) == (5, 0.0)


def test_a_segment_is_never_written_twice(tmp_path: Path) -> None:
    """An existing file, or a link of that name, is refused and left alone."""
    path, link = tmp_path / "a.events.zst", tmp_path / "b.events.zst"
    path.write_bytes(b"precious")
    link.symlink_to(tmp_path / "elsewhere")
    for taken in (path, link):
        with pytest.raises(SegmentExistsError):
            SegmentWriter(taken, segment_header())
    assert path.read_bytes() == b"precious"
    assert not (tmp_path / "elsewhere").exists()


events = st.one_of(
    st.builds(WindowOpened, kind=st.sampled_from(["baseline", "warmup", "measurement"])),
    st.builds(SamplesDropped, count=st.integers(0, 2**63 - 1), reason=st.text(max_size=20)),
    st.builds(
        WarningRaised,
        code=st.text(st.characters(exclude_categories=["Cs"])),
        text=st.text(st.characters(exclude_categories=["Cs"]), max_size=2000),
        value=st.none() | st.floats(allow_nan=False),
    ),
)


class SegmentModel(RuleBasedStateMachine):
    """One experiment's segments beside lists of what was appended and of what was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.closed: list[tuple[Path, list[tuple[int, Event]], Verdict]] = []
        self.tail: SegmentReader | None = None
        self.tailed: list[tuple[int, object]] = []

    @initialize()
    def open_first(self) -> None:
        self.reopen()

    def reopen(self) -> None:
        """A restart makes a new segment; an old one is never continued."""
        self.path = Path(self.folder.name) / f"{len(self.closed)}.events.zst"
        self.writer = SegmentWriter(
            self.path, segment_header(len(self.closed).to_bytes(16, "big")), sync="close"
        )
        self.appended: list[tuple[int, Event]] = []
        self.acknowledged = 0
        self.is_flushed = True

    @rule(event=events, at_ns=st.integers(0, 2**63 - 1))
    def append(self, event: Event, at_ns: int) -> None:
        assert self.writer.append(event, at_ns=at_ns) == len(self.appended)
        self.appended.append((at_ns, event))
        self.is_flushed = False

    @rule()
    def flush(self) -> None:
        written = self.writer.flush()
        assert (written is None) == self.is_flushed
        self.acknowledged, self.is_flushed = len(self.appended), True

    @rule()
    def seal_and_rotate(self) -> None:
        totals = self.writer.seal()
        assert totals.events == len(self.appended)
        self.rotate(self.appended, Verdict.CLEAN)

    @rule()
    def crash_between_writes(self) -> None:
        self.writer.close()
        self.rotate(self.appended[: self.acknowledged], Verdict.UNCLOSED)

    @precondition(lambda self: not self.is_flushed)
    @rule(missing=st.integers(1, 2**20))
    def crash_inside_a_write(self, missing: int) -> None:
        before = self.path.stat().st_size
        self.writer.flush()
        self.writer.close()
        written = self.path.stat().st_size - before
        with self.path.open("r+b") as file:
            file.truncate(before + written - 1 - missing % (written - 1))
        self.rotate(self.appended[: self.acknowledged], Verdict.TORN)

    def rotate(self, expected: list[tuple[int, Event]], verdict: Verdict) -> None:
        self.closed.append((self.path, expected, verdict))
        if self.tail is not None:
            self.tail.close()
        self.tail, self.tailed = None, []
        self.reopen()

    @rule()
    def follow(self) -> None:
        """A reader that stays open sees exactly what was flushed since it last looked."""
        if self.tail is None:
            self.tail = SegmentReader(self.path)
        for block in self.tail.blocks():
            self.tailed += [(envelope.at_ns, unpack(envelope)) for envelope in self.tail.events(block)]
        assert self.tailed == self.appended[: self.acknowledged]
        assert self.tail.verdict is Verdict.UNCLOSED

    @precondition(lambda self: self.closed)
    @rule()
    def recover_last(self) -> None:
        """Recovery of what a crash left loses nothing and is clean."""
        path, expected, _ = self.closed[-1]
        target = path.with_name(path.name + ".recovered")
        target.unlink(missing_ok=True)
        recover(path, target, limit_bytes=0)
        outcome = read_segment(target)
        assert (list(outcome.events.values()), outcome.verdict) == (expected, Verdict.CLEAN)

    @invariant()
    def replay_equals_the_list(self) -> None:
        for path, expected, verdict in self.closed[-2:]:
            outcome = read_segment(path)
            assert (list(outcome.events.values()), outcome.verdict) == (expected, verdict)

    def teardown(self) -> None:
        self.writer.close()
        if self.tail is not None:
            self.tail.close()
        self.folder.cleanup()


TestSegmentModel = SegmentModel.TestCase
TestSegmentModel.settings = settings(max_examples=10, stateful_step_count=25, deadline=None, derandomize=True)


@pytest.mark.slow
class TestSegmentModelForLonger(SegmentModel.TestCase):
    """The same with more examples."""

    settings = settings(TestSegmentModel.settings, max_examples=40)
