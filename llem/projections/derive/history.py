"""What the tables hold of an experiment's log, as the events that were written."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import duckdb
import msgspec

from llem.projections.checkpoint import REFUSED
from llem_events.events import (
    EVENT_TYPES,
    BaselineMeasured,
    Event,
    ExperimentCompleted,
    ExperimentInterrupted,
    ExperimentStarted,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    PromptsEncoded,
    ResultImported,
    SamplingCompleted,
    WarmupCompleted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
)

Span = tuple[int, int]  # nanoseconds of the monotonic clock
Kind = TypeVar("Kind", bound=Event)
WRAPPED_PROGRAM = "command"
_TYPES = {(event.TYPE, event.VERSION): event for event in EVENT_TYPES}
# Kinds of devices that no sensor reads: their figures must not read like one's where the sampler's log is lost.
_NO_SENSOR = {"simulated": "simulated", "process": "estimated"}


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment's identity and state."""

    experiment_id: str
    file: str
    segment_id: str | None
    role: str | None
    process_index: int | None
    host: str | None
    boot_id: str | None
    pid: int | None
    being_written: bool
    monotonic_ns: int | None
    wall_ns: int | None
    verdict: str
    problem: str | None
    skipped_bytes: int
    lost_bytes: int | None

    @property
    def missing_bytes(self) -> int:
        """Damaged bytes that are left out, now or when it was recovered."""
        return self.skipped_bytes + (self.lost_bytes or 0)

    @property
    def refused(self) -> bool:
        """Whether it keeps its experiment out of the tables."""
        return self.verdict in REFUSED and self.skipped_bytes == 0


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One event and where it stands."""

    segment_id: str
    at_ns: int
    event: Event


class Facts:
    """Some events, in the order of their segments."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.all = facts

    def every(self, kind: type[Kind]) -> list[Kind]:
        """All events of one kind."""
        return [fact.event for fact in self.all if isinstance(fact.event, kind)]

    def last(self, kind: type[Kind]) -> Kind | None:
        """The latest event of one kind."""
        return next(reversed(self.every(kind)), None)


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A window of a process; `closed` is None where its end was never recorded."""

    opened_ns: int
    opened: WindowOpened
    closed_ns: int | None
    closed: WindowClosed | None


class ProcessFacts(Facts):
    """What a worker and its sampler wrote."""

    def __init__(self, segment: Segment, facts: Sequence[Fact]) -> None:
        super().__init__(facts)
        self.segment = segment
        self.process_index = segment.process_index or 0
        self.host = segment.host or ""
        self.started = self.last(ProcessStarted)
        self.model = self.last(ModelLoaded)
        self.prompts = self.last(PromptsEncoded)
        self.warmup = self.last(WarmupCompleted)
        self.meter = self.last(MeterStarted)
        self.completed = self.last(ProcessCompleted)
        self.failed = self.last(ProcessFailed)
        self.sampling = self.last(SamplingCompleted)
        self.baselines: dict[str, BaselineMeasured] = {
            baseline.position: baseline for baseline in self.every(BaselineMeasured)
        }
        self.warnings = self.every(WarningRaised)

    @property
    def devices(self) -> list[MeteredDevice]:
        """Its devices: as its meter described them, or as the worker named them where no meter started."""
        if self.meter is not None:
            return self.meter.devices
        named = self.started.devices if self.started else []
        return [MeteredDevice(device=device, energy_source=_NO_SENSOR.get(device.kind)) for device in named]

    @property
    def windows(self) -> list[Window]:
        """Its windows, in the order of opening."""
        closed = {
            (fact.event.kind, fact.event.window_index): (fact.at_ns, fact.event)
            for fact in self.all
            if isinstance(fact.event, WindowClosed)
        }
        windows = []
        for fact in self.all:
            if isinstance(fact.event, WindowOpened):
                closed_ns, end = closed.get((fact.event.kind, fact.event.window_index), (None, None))
                windows.append(
                    Window(opened_ns=fact.at_ns, opened=fact.event, closed_ns=closed_ns, closed=end)
                )
        return windows

    @property
    def all_about_itself(self) -> list[ProcessStarted | MeterStarted | ProcessCompleted]:
        """Its events that name the process."""
        return [*self.every(ProcessStarted), *self.every(MeterStarted), *self.every(ProcessCompleted)]

    @property
    def stray_closes(self) -> int:
        """Ends of windows beyond one for each window."""
        return len(self.every(WindowClosed)) - sum(window.closed is not None for window in self.windows)

    @property
    def measurement_windows(self) -> list[Window]:
        """Those whose figures are the process's result."""
        return [window for window in self.windows if window.opened.kind == "measurement"]

    @property
    def wraps_program(self) -> bool:
        """Whether another program ran in the place of an engine: it has no tokens, requests or latencies."""
        return self.started is not None and self.started.engine == WRAPPED_PROGRAM


class ExperimentFacts(Facts):
    """What all processes of an experiment wrote."""

    def __init__(
        self, experiment_id: str, segments: Sequence[Segment], facts: Sequence[Fact], *, misfits: int = 0
    ) -> None:
        super().__init__(facts)
        self.misfits = misfits  # events of a known type that cannot be read as it
        self.experiment_id = experiment_id
        self.segments = segments
        self.started = self.last(ExperimentStarted)
        self.completed = self.last(ExperimentCompleted)
        self.interrupted = self.last(ExperimentInterrupted)
        self.imported = self.last(ResultImported)
        self.plan: dict[str, Any] = self.started.plan if self.started else {}
        self.processes = [
            ProcessFacts(segment, _written_by(segment, segments, facts))
            for segment in segments
            if segment.role == "worker" and segment.segment_id is not None
        ]

    @property
    def refused(self) -> Segment | None:
        """The segment that keeps the experiment out of the tables: a damaged one rather than a newer one."""
        refused = [segment for segment in self.segments if segment.refused]
        return min(refused, key=lambda segment: segment.verdict == "newer", default=None)


def _written_by(worker: Segment, segments: Iterable[Segment], facts: Iterable[Fact]) -> list[Fact]:
    """Facts of a worker and of its sampler."""
    own = {worker.segment_id} | {
        segment.segment_id
        for segment in segments
        if segment.role == "sampler"
        and (segment.host, segment.process_index) == (worker.host, worker.process_index)
    }
    return [fact for fact in facts if fact.segment_id in own]


def load_facts(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> ExperimentFacts:
    """All facts of one experiment but its samples and requests."""
    names = Segment.__struct_fields__
    segments = [
        Segment(**dict(zip(names, row, strict=True)))
        for row in connection.execute(
            f"SELECT {', '.join(names)} FROM segments WHERE experiment_id = ? ORDER BY file", [experiment_id]
        ).fetchall()
    ]
    rows = connection.execute(
        "SELECT segment_id, at_ns, type, version, body FROM events WHERE experiment_id = ? "
        "ORDER BY process_index NULLS FIRST, segment_id, event_number",
        [experiment_id],
    ).fetchall()
    known = [row for row in rows if (row[2], row[3]) in _TYPES]
    facts = [fact for row in known if (fact := _fact(*row)) is not None]
    return ExperimentFacts(experiment_id, segments, facts, misfits=len(known) - len(facts))


def _fact(segment_id: str, at_ns: int, kind: str, version: int, body: str | None) -> Fact | None:
    """The event of a row of a known type; None where it does not fit its type."""
    if body is None:
        return None
    try:
        event = msgspec.json.decode(body, type=_TYPES[kind, version])
    except msgspec.ValidationError:
        return None
    return Fact(segment_id=segment_id, at_ns=at_ns, event=event)
