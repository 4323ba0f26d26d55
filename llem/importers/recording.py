"""What another program recorded of a run, in the words of the log: its sums, its requests, and the events that its import writes."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec

from llem.units import MJ_PER_J, MW_PER_W, NS_PER_S, seconds
from llem.versions import __version__
from llem_events import ClockPair, Reading, columns
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    Device,
    EnergyEdge,
    Event,
    ExperimentCompleted,
    ExperimentStarted,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    OtherMeter,
    ProcessCompleted,
    ProcessStarted,
    Request,
    ResultImported,
    WarningRaised,
    WindowClosed,
    WindowOpened,
    WorkReported,
)
from llem_events.request_events import requests_completed

Span = tuple[int, int]  # ns from the origin
Dated = tuple[int, Event]
SAMPLES_OF_AN_EVENT = 2**12
_NO_SAMPLES = "the file has sums only"


class Mapped(NamedTuple):
    """What became of a figure of the file, or why a column of the tables has none."""

    column: str
    source: str | None = None
    reason: str | None = None


class Measurement(NamedTuple):
    """A window whose figures are the run's, and what counters said at its edges."""

    span: Span
    opened: Sequence[EnergyEdge] = ()
    closed: Sequence[EnergyEdge] = ()


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a file tells it; its moments are nanoseconds from `origin_ns`, which lies before all of them."""

    origin_ns: int  # since 1970
    measurements: Sequence[Measurement]
    mapping: Sequence[Mapped]
    notes: Sequence[str] = ()  # what was assumed, or is doubtful
    version: str | None = None  # of the program
    host: str = "unknown"
    model_name: str | None = None
    labels: Mapping[str, str] = {}
    meter: str | None = None  # more than the format: a library of several meters, an estimate
    devices: Sequence[MeteredDevice] = ()
    beside: Sequence[OtherMeter] = ()
    readings: Mapping[str, Sequence[Reading]] = {}  # of each device
    sample_hz: float = 0.0
    idle_before: Span | None = None
    guard: Span | None = None  # idle, right after the measurement
    idle_after: Span | None = None
    requests: Iterable[Request] | None = None  # which can be read again; None: the file has none
    work: WorkReported | None = None  # what it counted without telling of requests
    original: bytes | None = None  # of a file with several runs, what belongs to this one; None: all
    process_index: int = 0

    @property
    def began(self) -> datetime:
        """When its first measurement did."""
        began_ns = self.origin_ns + self.measurements[0].span[0]
        return datetime.fromtimestamp(began_ns / NS_PER_S, UTC)

    @property
    def clocks(self) -> ClockPair:
        """Its moments on the wall clock."""
        return ClockPair(0, self.origin_ns)

    def events(self, kept: ResultImported, *, experiment_id: str) -> Iterator[Dated]:
        """All of a run, in the order of a measurement's."""
        name = f"imported:{kept.format}"
        yield 0, self._started(kept, experiment_id)
        yield 0, kept if self.original is None else self._part(kept)
        yield 0, self._process(name)
        yield 0, self._meter(name)
        note = f"recorded by {kept.format} and imported from {kept.file_name}: llem did not measure it"
        for text in (note, *self.notes):
            yield 0, WarningRaised(code="imported", text=text)
        if self.model_name is not None:
            yield 0, ModelLoaded(model_name=self.model_name, weights="unknown", source="imported")
        yield from self._samples(name)
        yield from self._idled("before", self.idle_before, window_index=0)
        yield from self._measured()
        yield from self._idled("after", self.idle_after, window_index=1)
        end_ns = max(self.measurements[-1].span[1], *(span[1] for span in self._idle_spans), 0)
        yield end_ns, self._completed()
        yield end_ns, ExperimentCompleted(processes_completed=1, processes_failed=0)

    @property
    def _idle_spans(self) -> list[Span]:
        return [span for span in (self.idle_before, self.guard, self.idle_after) if span is not None]

    def _started(self, kept: ResultImported, experiment_id: str) -> ExperimentStarted:
        return ExperimentStarted(
            experiment_id=experiment_id,
            plan={},  # what the program was told stays in the original
            measurement_config_hash=f"imported-{kept.file_sha256[:12]}",
            expected_processes=1,
            labels={**self.labels, "imported_from": kept.file_name},
            llem_version=__version__,
        )

    def _part(self, kept: ResultImported) -> ResultImported:
        return msgspec.structs.replace(kept, original=self.original, bytes_kept=False)

    def _process(self, name: str) -> ProcessStarted:
        return ProcessStarted(
            process_index=self.process_index,
            devices=[metered.device for metered in self.devices],
            engine=name,
            versions={} if self.version is None else {name: self.version},
        )

    def _meter(self, name: str) -> MeterStarted:
        return MeterStarted(
            meter=self.meter or name,
            process_index=self.process_index,
            sample_hz=self.sample_hz,
            devices=list(self.devices),
            beside=list(self.beside),
        )

    def _samples(self, name: str) -> Iterator[Dated]:
        """Of every device, in pieces."""
        for uuid, readings in self.readings.items():
            for first in range(0, len(readings), SAMPLES_OF_AN_EVENT):
                piece = readings[first : first + SAMPLES_OF_AN_EVENT]
                yield piece[0].at_ns, columns.pack(piece, meter=self.meter or name, device_uuid=uuid)

    def _measured(self) -> Iterator[Dated]:
        for index, measurement in enumerate(self.measurements):
            opened_ns, closed_ns = measurement.span
            yield (
                opened_ns,
                WindowOpened(kind="measurement", window_index=index, edges=list(measurement.opened)),
            )
            yield (
                closed_ns,
                WindowClosed(kind="measurement", window_index=index, edges=list(measurement.closed)),
            )
        for event in requests_completed(self.requests or (), window="measurement"):
            yield event.requests[-1].end_ns, event
        if self.work is not None:
            yield self.measurements[-1].span[1], self.work
        if self.guard is not None:
            yield self.guard[0], WindowOpened(kind="guard")
            yield self.guard[1], WindowClosed(kind="guard")

    def _idled(self, position: str, span: Span | None, *, window_index: int) -> Iterator[Dated]:
        if span is None:
            return
        yield span[0], WindowOpened(kind="baseline", window_index=window_index)
        yield span[1], WindowClosed(kind="baseline", window_index=window_index)
        powers = [_idle_power(metered.device.uuid, self.readings, span) for metered in self.devices]
        baseline = BaselineMeasured(position=position, duration_s=seconds(span[1] - span[0]), devices=powers)
        yield span[1], baseline

    def _completed(self) -> ProcessCompleted:
        if self.requests is None:
            return ProcessCompleted(process_index=0)
        count = failed = input_tokens = output_tokens = 0
        for request in self.requests:
            count, failed = count + 1, failed + (request.finish_reason == "error")
            input_tokens, output_tokens = (
                input_tokens + request.input_tokens,
                output_tokens + request.output_tokens,
            )
        return ProcessCompleted(
            process_index=0,
            requests=count,
            failed_requests=failed,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            batches=count,  # each is a batch of its own
        )


def powers_w(readings: Iterable[Reading], span: Span) -> list[float]:
    """Known powers within a span."""
    return [*each_power_w(readings, span)]


def each_power_w(readings: Iterable[Reading], span: Span) -> Iterator[float]:
    """The same one after the other."""
    inside = (reading for reading in readings if span[0] <= reading.at_ns <= span[1])
    known = (reading.power_average_mw if reading.power_mw is None else reading.power_mw for reading in inside)
    return (power_mw / MW_PER_W for power_mw in known if power_mw is not None)


def _idle_power(uuid: str, readings: Mapping[str, Sequence[Reading]], span: Span) -> BaselinePower:
    powers = powers_w(readings.get(uuid, ()), span)
    if not powers:
        return BaselinePower(
            device_uuid=uuid, mean_power_w=None, std_power_w=None, samples=0, reason="no power was read"
        )
    return BaselinePower(
        device_uuid=uuid,
        mean_power_w=statistics.fmean(powers),
        std_power_w=statistics.stdev(powers) if len(powers) > 1 else None,
        samples=len(powers),
    )


class Sum(NamedTuple):
    """Joules of a device, or why there are none."""

    uuid: str
    kind: str
    energy_j: float | None
    reason: str | None = None
    name: str = "unknown"
    source: Literal["counter", "estimated"] = "counter"

    def metered(self, index: int) -> MeteredDevice:
        """The device, which has no samples."""
        return MeteredDevice(
            device=Device(host="unknown", uuid=self.uuid, index=index, name=self.name, kind=self.kind),
            energy_source=self.source,
            missing={"power_mw": _NO_SAMPLES} | ({} if self.reason is None else {"energy_mj": self.reason}),
        )

    def edge(self, at_ns: int, *, energy_j: float) -> EnergyEdge:
        """A reading, or why there is none."""
        if self.energy_j is None:
            return EnergyEdge(device_uuid=self.uuid, at_ns=at_ns, reason=self.reason)
        return EnergyEdge(device_uuid=self.uuid, at_ns=at_ns, energy_mj=round(energy_j * MJ_PER_J))


def metered(sums: Sequence[Sum]) -> list[MeteredDevice]:
    """Their devices."""
    return [each.metered(index) for index, each in enumerate(sums)]


def measurement(span: Span, sums: Sequence[Sum]) -> Measurement:
    """A window over which each counted from 0."""
    return Measurement(
        span,
        [each.edge(span[0], energy_j=0.0) for each in sums],
        [each.edge(span[1], energy_j=each.energy_j or 0.0) for each in sums],
    )


def request(
    number: int,
    *,
    arrival_ns: int,
    start_ns: int,
    first_ns: int | None,
    end_ns: int,
    input_tokens: int,
    output_tokens: int,
    gaps_sec: Sequence[float] | None,
    headers_ns: int | None = None,
    error: str | None = None,
    status: int | None = None,
) -> Request:
    """With the time of each token or piece after the first, where `gaps_sec` between them are known."""
    times_ns = [] if first_ns is None or gaps_sec is None else _times_ns(first_ns, gaps_sec)
    counted = len(times_ns) == output_tokens
    unknown = "the file has no times of tokens" if output_tokens and not times_ns else None
    return Request(
        request_id=number,
        batch_index=number,
        batch_size=1,
        arrival_ns=min(arrival_ns, start_ns),
        start_ns=start_ns,
        first_token_ns=first_ns,
        end_ns=max([start_ns, end_ns, *times_ns[-1:], *filter(None, [first_ns])]),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        token_times_ns=times_ns if counted else [],
        chunk_times_ns=[] if counted else times_ns,
        # how many tokens a piece brought, nobody wrote down
        chunk_tokens=[] if counted else [None] * len(times_ns),
        times_reason=unknown,
        finish_reason="finished" if error is None else "error",
        error=error,
        headers_ns=headers_ns,
        http_status=status,
    )


def _times_ns(first_ns: int, gaps_sec: Sequence[float]) -> list[int]:
    return [first_ns + round(after_sec * NS_PER_S) for after_sec in accumulate(gaps_sec, initial=0.0)]


def nanoseconds(seconds: float) -> int:
    """Of a length or a moment in seconds."""
    return round(seconds * NS_PER_S)
