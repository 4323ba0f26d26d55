"""An experiment's log as the tables hold it: the events that were written, by whom, and the windows that they tell of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import duckdb
import msgspec

from llem.projections.checkpoint import SegmentState
from llem.projections.derive.sensors import NEARLY_ALL_SEEN, as_calibrated
from llem.projections.derive.source import DRAIN, GUARD, MEASUREMENT, Span
from llem.units import NS_PER_S, seconds
from llem_events.events import (
    EVENT_TYPES,
    BaselineMeasured,
    BaselinePower,
    DeviceSettingChanged,
    Event,
    ExperimentCompleted,
    ExperimentInterrupted,
    ExperimentLabelled,
    ExperimentStarted,
    LoadCompleted,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    OtherMeter,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    PromptsEncoded,
    Region,
    RegionsReported,
    ResultImported,
    SamplingCompleted,
    SensorCalibrated,
    ServerStarted,
    ServerStopped,
    WarmupCompleted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
    WorkReported,
)

Kind = TypeVar("Kind", bound=Event)
Clock = tuple[str | None, str | None]  # host and boot: monotonic clocks compare only within one
WRAPPED_PROGRAM = "command"
IMPORT = "import"
NOTE = "note"
SUPERVISING = ("supervisor", "rank")  # of the experiment, and of the part of another rank
_TYPES = {(event.TYPE, event.VERSION): event for event in EVENT_TYPES}
# Kinds of devices that no sensor reads: their figures must not read like one's where the sampler's log is lost.
_NO_SENSOR = {"simulated": "simulated", "process": "estimated"}
FOLLOWS_NS = NS_PER_S // 2  # what a window follows, at most


class Segment(SegmentState, frozen=True, kw_only=True):
    """A segment's identity and state."""

    segment_id: str | None
    role: str | None
    process_index: int | None
    host: str | None
    boot_id: str | None
    pid: int | None
    monotonic_ns: int | None
    wall_ns: int | None
    lost_bytes: int | None
    applied_bytes: int
    samples: int

    @property
    def clock(self) -> Clock:
        """Whose times compare with each other."""
        return self.host, self.boot_id

    @property
    def missing_bytes(self) -> int:
        """Damaged bytes that are left out, now or when it was recovered."""
        return self.skipped_bytes + (self.lost_bytes or 0)


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One event and where it stands."""

    segment_id: str
    at_ns: int
    event: Event


class Facts:
    """Some events, in the order of their segments."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.all = facts
        self._by_kind: dict[type[Event], list[Any]] = {}
        for fact in facts:
            self._by_kind.setdefault(type(fact.event), []).append(fact.event)

    def every(self, kind: type[Kind]) -> Sequence[Kind]:
        """All events of one kind."""
        return self._by_kind.get(kind, ())

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

    def __init__(
        self,
        segment: Segment,
        facts: Sequence[Fact],
        *,
        plan: dict[str, Any],
        load: Segment | None = None,
    ) -> None:
        super().__init__(facts)
        self.segment = segment
        self._shift_pauses_sec = _shift_pauses_sec(plan)
        # of a server, the requests stand in the segment of the process that sent them
        self.requests_segment_id = (segment if load is None else load).segment_id
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
        self.calibrations = self.every(SensorCalibrated)  # that its figures rely on
        self.work = self.last(WorkReported)  # of a wrapped program that reported any
        self.server = self.last(ServerStarted)
        self.server_end = self.last(ServerStopped)
        self.load = next(
            (load for load in reversed(self.every(LoadCompleted)) if load.window == "measurement"), None
        )

    @property
    def devices(self) -> list[MeteredDevice]:
        """Its devices: as its meter described them and a calibration knows them, or as the worker named them where no meter started."""
        if self.meter is not None:
            return self._as_calibrated(self.meter.devices)
        named = self.started.devices if self.started else []
        return [MeteredDevice(device=device, energy_source=_NO_SENSOR.get(device.kind)) for device in named]

    @property
    def beside(self) -> list[OtherMeter]:
        """The meters that were read beside the first, each with its devices: none of them is part of the total."""
        return self.meter.beside if self.meter is not None else []

    def calibration_of(self, metered: MeteredDevice) -> SensorCalibrated | None:
        """That of the power sensor which its figures rely on; None where none was known when it was measured."""
        sensor = "power_average_mw" if "power_mw" in metered.missing else "power_mw"
        device = metered.device
        wanted = device.host, device.parent_uuid or device.uuid, sensor
        found = [each for each in self.calibrations if (each.host, each.device_uuid, each.sensor) == wanted]
        return found[-1] if found else None

    def _as_calibrated(self, devices: Iterable[MeteredDevice]) -> list[MeteredDevice]:
        return [as_calibrated(metered, self.calibration_of(metered)) for metered in devices]

    def load_shifts(self, duration_sec: float, *, refresh_sec: float) -> int:
        """How often the load was shifted within so long by a random part of a sensor's refresh; 0 where the pauses were shorter than one."""
        measured_ns = sum(
            window.closed_ns - window.opened_ns
            for window in self.windows
            if window.opened.kind == "measurement" and window.closed_ns is not None
        )
        batches = self.completed.batches if self.completed else None
        if not batches or not measured_ns or not 0 < NEARLY_ALL_SEEN * refresh_sec <= self._shift_pauses_sec:
            return 0
        return int(batches * min(1.0, duration_sec / seconds(measured_ns)))

    def idle_powers(self, position: str) -> list[BaselinePower]:
        """Of the first meter's devices; none where there was no such baseline."""
        baseline = self.baselines.get(position)
        others = {metered.device.uuid for other in self.beside for metered in other.devices}
        return [power for power in baseline.devices if power.device_uuid not in others] if baseline else []

    @property
    def every_device(self) -> list[tuple[str | None, MeteredDevice]]:
        """The devices of all meters, each with what read it."""
        first = self.meter.meter if self.meter is not None else None
        others = [
            (other.meter, metered) for other in self.beside for metered in self._as_calibrated(other.devices)
        ]
        return [*((first, metered) for metered in self.devices), *others]

    @cached_property
    def windows(self) -> Sequence[Window]:
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
        return [window for window in self.windows if window.opened.kind == MEASUREMENT]

    @property
    def drain_windows(self) -> list[Window]:
        """Those in which a server answered what had been asked in a measurement."""
        return [window for window in self.windows if window.opened.kind == DRAIN]

    @cached_property
    def regions(self) -> list[Region]:
        """Those of a wrapped program, each once, in the order of beginning; what is said last of one holds."""
        told = {region.index: region for event in self.every(RegionsReported) for region in event.regions}
        return [told[index] for index in sorted(told)]

    def idling_after(self, end_ns: int) -> Span | None:
        """From when to when it did nothing after a moment, at once or after the drain that begins there; None where no guard follows."""
        drain_ns = self._closed_after(DRAIN, end_ns)
        busy_until_ns = end_ns if drain_ns is None else drain_ns
        guard_ns = self._closed_after(GUARD, busy_until_ns)
        return None if guard_ns is None else (busy_until_ns, guard_ns)

    def _closed_after(self, kind: str, end_ns: int) -> int | None:
        """When the window of a kind that follows at once was closed."""
        for window in self.windows:
            if window.opened.kind == kind and 0 <= window.opened_ns - end_ns <= FOLLOWS_NS:
                return window.closed_ns
        return None

    @property
    def is_imported(self) -> bool:
        """Whether another program recorded it: it has no sampler of ours."""
        return self.segment.role == IMPORT

    @property
    def is_silent(self) -> bool:
        """Whether another process of its group reports the requests of the model that they run together."""
        return self.started is not None and bool(self.started.group_rank)

    @property
    def wraps_program(self) -> bool:
        """Whether another program ran in the place of an engine: it has no latencies, and only the tokens and requests that it reported."""
        if self.is_imported:
            return self.completed is None or self.completed.requests is None
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
        supervisors = {segment.segment_id for segment in segments if segment.role in SUPERVISING}
        self.warnings = Facts([fact for fact in facts if fact.segment_id in supervisors]).every(WarningRaised)
        self.processes = [
            ProcessFacts(
                segment,
                _written_by(segment, segments, facts),
                load=next(_beside(segment, segments, role="load"), None),
                plan=self.plan,
            )
            for segment in segments
            if _has_process(segment) and segment.segment_id is not None
        ]

    def labels(self, before: Mapping[str, str]) -> dict[str, str]:
        """Those from before, and what was noted since; the later note holds."""
        written_ns = {segment.segment_id: segment.wall_ns or 0 for segment in self.segments}
        notes = [
            (written_ns[fact.segment_id], fact.segment_id, place, fact.event.labels)
            for place, fact in enumerate(self.all)
            if isinstance(fact.event, ExperimentLabelled)
        ]
        labels: dict[str, str | None] = dict(before)
        for *_, changed in sorted(notes):
            labels |= changed
        return {key: text for key, text in labels.items() if text is not None}

    def setting(self, name: str) -> float | None:
        """What the devices were set to for this run: as the driver says, or as it was told; the lowest of all devices."""
        changes = [
            change
            for change in self.every(DeviceSettingChanged)
            if change.setting == name and not change.restored
        ]
        made = [change.asked if change.read_back is None else change.read_back for change in changes]
        return min((value for value in made if value is not None), default=None)

    @property
    def refused(self) -> Segment | None:
        """The segment that keeps the experiment out of the tables: a damaged one rather than a newer one."""
        refused = [segment for segment in self.segments if segment.refused]
        return min(refused, key=lambda segment: segment.verdict == "newer", default=None)


def _shift_pauses_sec(plan: dict[str, Any]) -> float:
    """As the plan has it, which any llem may have written."""
    workload = plan.get("workload")
    pauses = workload.get("shift_pauses_s") if isinstance(workload, dict) else None
    return float(pauses) if isinstance(pauses, int | float) else 0.0


def _has_process(segment: Segment) -> bool:
    """A worker's, or of an imported file that tells of a run: one that is a result has no process."""
    return segment.role == "worker" or (segment.role == IMPORT and segment.process_index is not None)


def _written_by(worker: Segment, segments: Sequence[Segment], facts: Iterable[Fact]) -> list[Fact]:
    """Facts of a worker, its sampler and its load process."""
    beside = [other for role in ("sampler", "load") for other in _beside(worker, segments, role=role)]
    own = {segment.segment_id for segment in (worker, *beside)}
    return [fact for fact in facts if fact.segment_id in own]


def _beside(worker: Segment, segments: Sequence[Segment], *, role: str) -> Iterator[Segment]:
    """The segments of other processes of the same worker."""
    for segment in segments:
        if segment.role == role and (segment.host, segment.process_index) == (
            worker.host,
            worker.process_index,
        ):
            yield segment


def load_histories(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str], events_rows: str
) -> dict[str, ExperimentFacts]:
    """All facts of experiments but their samples and requests; of events, those of some rows. Without segments where nothing is known of one."""
    names = Segment.__struct_fields__
    segments: dict[str, list[Segment]] = {experiment_id: [] for experiment_id in experiment_ids}
    rows = connection.execute(
        f"SELECT {', '.join(names)} FROM segments WHERE experiment_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY file",
        [experiment_ids],
    ).fetchall()
    for row in rows:
        segment = Segment(**dict(zip(names, row, strict=True)))
        segments[segment.experiment_id].append(segment)
    rows = connection.execute(
        f"SELECT experiment_id, segment_id, at_ns, type, version, body {events_rows} "
        "ORDER BY experiment_id, process_index NULLS FIRST, segment_id, event_number",
        [experiment_ids],
    ).fetchall()
    events: dict[str, list[tuple[Any, ...]]] = {experiment_id: [] for experiment_id in experiment_ids}
    for experiment_id, *event in rows:
        events[experiment_id].append(tuple(event))
    return {each: _facts(each, segments[each], events[each]) for each in experiment_ids}


def facts_of(
    experiment_id: str, checkpoints: Sequence[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]
) -> ExperimentFacts:
    """The same from rows that are not in the tables yet."""
    segments = [
        Segment(**{name: checkpoint[name] for name in Segment.__struct_fields__})
        for checkpoint in sorted(checkpoints, key=lambda checkpoint: str(checkpoint["file"]))
    ]
    ordered = sorted(events, key=_place)
    rows = [
        tuple(event[name] for name in ("segment_id", "at_ns", "type", "version", "body")) for event in ordered
    ]
    return _facts(experiment_id, segments, rows)


def _place(event: Mapping[str, Any]) -> tuple[int, str, int]:
    """Where an event stands among those of its experiment: the supervisor's first."""
    index = event["process_index"]
    return -1 if index is None else index, event["segment_id"], event["event_number"]


def _facts(
    experiment_id: str, segments: Sequence[Segment], rows: Sequence[tuple[Any, ...]]
) -> ExperimentFacts:
    known = [row for row in rows if (row[2], row[3]) in _TYPES]
    facts = [fact for row in known if (fact := _fact(*row)) is not None]
    return ExperimentFacts(experiment_id, segments, facts, misfits=len(known) - len(facts))


def _fact(
    segment_id: str, at_ns: int, kind: str, version: int, body: str | msgspec.Raw | None
) -> Fact | None:
    """The event of a row of a known type; None where it does not fit its type."""
    if body is None:
        return None
    try:
        event = msgspec.json.decode(body, type=_TYPES[kind, version])
    except msgspec.ValidationError:
        return None
    return Fact(segment_id=segment_id, at_ns=at_ns, event=event)
