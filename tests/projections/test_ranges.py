"""What a log may say and what is done about the rest: ranges of clocks and counts, reasons against an experiment, and the memory that it takes."""

import contextlib
import re
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import numpy as np
import pytest

from llem.projections import containment
from llem.projections.checkpoint import KnownSegment, SegmentFile
from llem.projections.containment import MAX_REASON, MisfitError, check_memory, reason_against
from llem.projections.derive.held import Held, HeldRequests, HeldSamples
from llem.projections.derive.history import ExperimentFacts, Fact
from llem.projections.derive.source import POSSIBLE, Device
from llem.projections.ingest import identity_of, read_whole
from llem.projections.ranges import (
    MAX_COUNT,
    MAX_MONOTONIC_NS,
    MAX_PROCESSES,
    MAX_WALL_NS,
    check_header,
    check_ranges,
)
from llem.store import Store
from llem_events import SCHEMA_VERSION, CorruptError, NewerFormatError
from llem_events.events import Event, Region, RegionsReported, WorkReported
from tests.world import header_of, request, supervisor_events, worker_events, write


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("monotonic_ns", 0, MAX_MONOTONIC_NS),
        ("wall_ns", 0, MAX_WALL_NS),
        ("process_index", 0, MAX_PROCESSES),
    ],
)
def test_clocks_and_index_of_a_header_are_in_a_range(name: str, least: int, most: int) -> None:
    """Its ends are; what lies a step beyond is named with what was expected."""
    for possible in (least, most):
        check_header(header_of("worker", **{name: possible}))
    for impossible in (least - 1, most + 1):
        with pytest.raises(
            MisfitError, match=f"{name} of the header: found {impossible}, expected 0 to {most}"
        ):
            check_header(header_of("worker", **{name: impossible}))


def test_a_header_without_an_index_fits() -> None:
    """A supervisor's."""
    check_header(header_of("supervisor"))


def test_limits_are_those_of_the_world() -> None:
    """36 years without a reboot, the year 2116, and whole numbers that a DOUBLE tells apart."""
    year_ns = 365.25 * 86_400 * 1e9
    assert 36 < MAX_MONOTONIC_NS / year_ns < 37
    assert 2116 < 1970 + MAX_WALL_NS / year_ns < 2117
    assert float(MAX_COUNT - 1) != float(MAX_COUNT) == float(MAX_COUNT + 1)


def facts(*events: Event) -> ExperimentFacts:
    return ExperimentFacts("run", [], [Fact(segment_id="s", at_ns=0, event=event) for event in events])


def region(**changes: Any) -> RegionsReported:
    usual = {"index": 0, "name": "n", "process": "1", "began_ns": 1, "ended_ns": 2}
    return RegionsReported(regions=[Region(**usual | changes)])


NOTHING = Held([], [], {})


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (lambda most: region(began_ns=most), "began_ns of a region"),
        (lambda most: region(ended_ns=most), "ended_ns of a region"),
    ],
)
def test_moments_of_a_region_are_in_a_range(event: Any, what: str) -> None:
    """Either way of zero."""
    for possible in (MAX_MONOTONIC_NS, -MAX_MONOTONIC_NS):
        check_ranges(NOTHING, facts(event(possible)))
    for impossible in (MAX_MONOTONIC_NS + 1, -MAX_MONOTONIC_NS - 1):
        with pytest.raises(MisfitError, match=f"{what}: found {impossible}"):
            check_ranges(NOTHING, facts(event(impossible)))


@pytest.mark.parametrize(
    "event",
    [
        lambda count: region(tokens=count),
        lambda count: region(requests=count),
        lambda count: WorkReported(tokens=count),
        lambda count: WorkReported(requests=count),
    ],
)
def test_work_of_a_program_is_in_a_range(event: Any) -> None:
    """No less than none, and what a DOUBLE tells from its neighbours; what was not told is in it."""
    for possible in (None, 0, MAX_COUNT):
        check_ranges(NOTHING, facts(event(possible)))
    for impossible in (-1, MAX_COUNT + 1):
        with pytest.raises(MisfitError, match=f"found {impossible}, expected 0 to {MAX_COUNT}"):
            check_ranges(NOTHING, facts(event(impossible)))


def test_so_many_processes_may_be_expected() -> None:
    """As many as an index can tell apart; less than none is no number of them."""

    def expecting(processes: int) -> ExperimentFacts:
        (_, started), _ = supervisor_events(processes)
        return facts(started)

    for possible in (0, MAX_PROCESSES):
        check_ranges(NOTHING, expecting(possible))
    for impossible in (-1, MAX_PROCESSES + 1):
        with pytest.raises(MisfitError, match=f"expected_processes: found {impossible}, expected 0 to"):
            check_ranges(NOTHING, expecting(impossible))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *((name, MAX_MONOTONIC_NS) for name in ("arrival_ns", "start_ns", "first_token_ns", "end_ns")),
        *((name, MAX_COUNT) for name in ("input_tokens", "output_tokens", "batch_index", "batch_size")),
    ],
)
def test_columns_of_requests_are_in_a_range(name: str, most: int) -> None:
    """Whatever the others are."""
    for found in (most, -most, most + 1, -most - 1):
        source = Held([], [], {"s": HeldRequests([(0, "warmup", [request(0, 1.0, **{name: found})])])})
        if abs(found) == most:
            check_ranges(source, facts())
        else:
            with pytest.raises(MisfitError, match=f"{name} of requests: found {found}"):
                check_ranges(source, facts())


def test_moments_of_events_samples_and_tokens_are_in_a_range() -> None:
    """Each names its table."""
    beyond_ns = MAX_MONOTONIC_NS + 1
    columns = {name: np.zeros(1) for name in POSSIBLE}
    sampled = HeldSamples(Device(0, "GPU-0"), "s", np.array([beyond_ns]), columns)
    late = HeldRequests([(0, "measurement", [request(0, 1.0, token_times_ns=[1, beyond_ns])])])
    for source, what in (
        (Held([0, beyond_ns], [], {}), "at_ns of events"),
        (Held([0], [sampled], {}), "at_ns of samples"),
        (Held([0], [], {"s": late}), "token_times_ns of requests"),
    ):
        with pytest.raises(MisfitError, match=f"{what}: found {beyond_ns}"):
            check_ranges(source, facts())


@pytest.mark.parametrize(
    ("name", "possible", "impossible"),
    [
        ("power_w", (0.0, 1e6), (-0.001, 1e6 + 1)),
        ("power_average_w", (0.0, 1e6), (-0.001, 1e6 + 1)),
        ("power_limit_w", (0.0, 1e6), (-0.001, 1e6 + 1)),
        ("energy_j", (0.0, 1e300), (-0.001,)),
        ("memory_used_bytes", (0.0, 1e18), (-1.0,)),
        ("sm_clock_mhz", (0.0, 1e9), (-1.0,)),
        ("memory_clock_mhz", (0.0, 1e9), (-1.0,)),
        ("gpu_utilisation_pct", (0.0, 100.0), (-1.0, 101.0)),
        ("memory_utilisation_pct", (0.0, 100.0), (-1.0, 101.0)),
        ("temperature_c", (-60.0, 200.0), (-61.0, 201.0)),
        ("throttle_reasons", (0.0, 2.0**53), (-1.0, 2.0**53 + 2)),
    ],
)
def test_what_a_device_of_today_reads(
    name: str, possible: tuple[float, ...], impossible: tuple[float, ...]
) -> None:
    """What lies beyond was not measured; what is not known is not impossible."""
    for values, count in ((possible, 0), (impossible, len(impossible)), ((np.nan,), 0)):
        columns = {each: np.zeros(len(values)) for each in POSSIBLE} | {name: np.array(values)}
        sampled = HeldSamples(Device(0, "GPU-0"), "s", np.arange(len(values)), columns)
        (counted,) = Held([], [sampled], {}).sampled()
        assert counted.impossible == count


def place(experiment_id: str = "run-1") -> SegmentFile:
    return SegmentFile(experiment_id=experiment_id, path=cast(Any, None), file_bytes=1, modified_ns=1)


def test_a_header_is_that_of_its_file() -> None:
    """Of a schema that is known, and of the experiment whose folder it stands in."""
    header = header_of("worker", index=3, schema_version=SCHEMA_VERSION)
    found = identity_of(header, place())
    assert (found.experiment_id, found.process_index, found.segment_id) == (
        "run-1",
        3,
        header.segment_id.hex(),
    )
    with pytest.raises(
        NewerFormatError, match=f"version {SCHEMA_VERSION + 1}, expected at most {SCHEMA_VERSION}"
    ):
        identity_of(header_of("worker", schema_version=SCHEMA_VERSION + 1), place())
    with pytest.raises(CorruptError, match="names experiment 'run-1', the folder is 'other'"):
        identity_of(header, place("other"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("about 9 GiB"), "too large to derive here: about 9 GiB"),
        (MemoryError(), "too large to derive here"),
        (duckdb.OutOfMemoryException("full"), "too large to derive here: full"),
        (MisfitError("it cannot be"), "it cannot be"),
        (duckdb.ConversionException("odd"), "a value that no column holds: odd"),
        (ValueError("a  b\nc"), "ValueError: a b"),
        (ValueError("x" * 999), "ValueError: " + "x" * MAX_REASON),
    ],
)
def test_a_failure_of_a_log_is_a_reason_against_it(error: Exception, reason: str) -> None:
    """In one line, of some length."""
    assert reason_against(error) == reason


@pytest.mark.parametrize(
    "error", [OSError("disk"), duckdb.IOException("disk"), duckdb.InterruptException("stop")]
)
def test_a_failure_of_the_machine_is_none(error: Exception) -> None:
    """It is raised as it is."""
    with pytest.raises(type(error)):
        reason_against(error)


NOT_FREE = r"GiB of memory are needed, .* are free"


@pytest.mark.parametrize(
    ("samples", "tokens", "fits"), [(0, 0, True), (10, 10, True), (10**15, 0, False), (0, 10**4, True)]
)
def test_more_memory_than_is_free_is_an_error(samples: int, tokens: int, fits: bool) -> None:
    """Before the kernel says so; of nothing, and of what is always there, nobody asks how much is free."""
    with contextlib.nullcontext() if fits else pytest.raises(MemoryError, match=NOT_FREE):
        check_memory(token_times=tokens, samples=samples)


@pytest.mark.parametrize(
    ("samples", "tokens", "fits"),
    [(200, 0, True), (201, 0, False), (0, 100, True), (0, 101, False), (100, 50, True), (100, 51, False)],
)
def test_a_sample_takes_twenty_bytes_and_a_token_forty(
    samples: int, tokens: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4,000 bytes that are free, where less than that is always there."""
    monkeypatch.setattr(containment, "_ALWAYS_THERE_BYTES", 1_000)
    monkeypatch.setattr(containment, "_free_bytes", lambda: iter([10**12, 4_000]))
    with contextlib.nullcontext() if fits else pytest.raises(MemoryError, match=NOT_FREE):
        check_memory(token_times=tokens, samples=samples)


MEMINFO = "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\nBuffers: 5 kB\n"


@pytest.mark.parametrize(
    ("files", "ceiling", "free"),
    [
        ({}, -1, []),
        ({"/proc/meminfo": MEMINFO}, -1, [2048 * 1024]),
        ({"memory.max": "9000\n", "memory.current": "2000\n"}, -1, [7000]),
        ({"memory.max": "max\n", "memory.current": "2000\n"}, -1, []),
        ({"memory.max": "9000\n"}, -1, []),
        ({"statm": "3 2 1\n"}, -1, []),
        ({"statm": "3 2 1\n"}, 10**9, [10**9 - 3 * resource.getpagesize()]),
        ({}, 10**9, []),
    ],
    ids=[
        "nothing",
        "machine",
        "group",
        "group without limit",
        "half a group",
        "no limit",
        "limit",
        "no size",
    ],
)
def test_what_is_free_is_what_every_limit_leaves(
    files: dict[str, str], ceiling: int, free: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the machine's memory, of the control group's and of the process's own; a limit that cannot be read is none."""
    monkeypatch.setattr(
        containment, "_text", lambda path: next((files[end] for end in files if path.endswith(end)), "")
    )
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_AS: (ceiling, -1)}.get)
    whole, *others = containment._free_bytes()
    assert others == free
    (total_kib,) = re.findall(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())
    assert whole == pytest.approx(int(total_kib) * 1024, rel=0.1)


def test_a_file_that_cannot_be_read_has_no_text(tmp_path: Path) -> None:
    """As on a machine without control groups."""
    (tmp_path / "file").write_text("some")
    assert [containment._text(str(tmp_path / name)) for name in ("file", "none")] == ["some", ""]


def known(**changes: Any) -> KnownSegment:
    usual: dict[str, Any] = {
        "experiment_id": "run",
        "file": "f",
        "verdict": "unclosed",
        "problem": None,
        "being_written": False,
        "skipped_bytes": 0,
        "file_bytes": 10,
        "modified_ns": 5,
        "applied_bytes": 8,
        "blocks": 2,
        "events": 3,
        "samples": 0,
        "requests": 0,
        "digest": "ab",
        "derived_blocks": None,
        "clock_offset_ns": None,
    }
    return KnownSegment(**usual | changes)


def found(file_bytes: int, modified_ns: int = 5) -> SegmentFile:
    file = SimpleNamespace(file_bytes=file_bytes, modified_ns=modified_ns, is_being_written=lambda: False)
    return cast(SegmentFile, file)


@pytest.mark.parametrize(
    ("verdict", "file_bytes", "modified_ns", "grew"),
    [
        ("unclosed", 10, 5, True),
        ("clean", 10, 5, True),
        ("unclosed", 11, 6, True),
        ("clean", 11, 6, False),
        ("unclosed", 10, 6, False),
        ("unclosed", 9, 5, False),
    ],
)
def test_a_file_that_only_grew_is_read_on(
    verdict: str, file_bytes: int, modified_ns: int, grew: bool
) -> None:
    """What is as it was too; a seal is the end, and nothing is written over."""
    assert known(verdict=verdict).only_grew(found(file_bytes, modified_ns)) is grew


def test_what_is_unchanged_is_not_read() -> None:
    """Size, time, and whether its writer lives."""
    assert known().unchanged(found(10)) and known().unchanged(found(10, 5))
    assert not known().unchanged(found(11)) and not known().unchanged(found(10, 6))
    assert not known(being_written=True).unchanged(found(10))


@pytest.mark.parametrize(
    ("verdict", "skipped_bytes", "refused"),
    [
        ("corrupt", 0, True),
        ("corrupt", 1, False),
        ("newer", 0, True),
        ("unusable", 0, True),
        ("unreadable", 0, True),
        ("torn", 0, False),
    ],
)
def test_what_keeps_an_experiment_out(verdict: str, skipped_bytes: int, refused: bool) -> None:
    """Unless the damage is left out."""
    assert known(verdict=verdict, skipped_bytes=skipped_bytes).refused is refused


def test_where_to_read_on() -> None:
    """After what was applied; nowhere where nothing was."""
    position = known().position
    assert position is not None and (position.blocks, position.events, position.digest) == (2, 3, b"\xab")
    assert known(digest=None).position is None


@pytest.mark.parametrize(
    ("header", "cut", "is_taken"),
    [({}, None, True), ({"recovered_from": bytes(16)}, None, False), ({}, 20, False)],
    ids=["original", "recovered", "torn"],
)
def test_what_is_taken_at_once_is_an_original(
    tmp_path: Path, header: dict[str, Any], cut: int | None, is_taken: bool
) -> None:
    """A recovered one may stand for another, and of a torn one nobody knows whose it is."""
    store = Store(tmp_path / "store").create()
    path = write(store, worker_events(), role="worker", index=0, **header)
    path.write_bytes(path.read_bytes()[:cut])
    file = SegmentFile(experiment_id="run-1", path=path, file_bytes=path.stat().st_size, modified_ns=1)
    assert (read_whole(file) is not None) is is_taken
