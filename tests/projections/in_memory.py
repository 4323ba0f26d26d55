"""An experiment as its writers said it, derived without a file or a table: a test of one figure takes milliseconds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llem.projections.derive.experiment import Derived, derive_experiment
from llem.projections.derive.held import Held, HeldRequests, HeldSamples
from llem.projections.derive.history import ExperimentFacts, Fact, Segment
from llem.projections.derive.source import POSSIBLE, Device
from llem.units import SAMPLE_UNITS
from llem_events import columns
from llem_events.events import Event, RequestsCompleted, SamplesTaken
from tests.world import (
    EXPERIMENT,
    HOST,
    OFFSET_NS,
    ORIGIN_NS,
    Dated,
    at,
    sampler_events,
    supervisor_events,
    worker_events,
)

Change = Callable[[float, Event], Event | None]


def segment(role: str, *, index: int | None = None, host: str = HOST, **more: Any) -> Segment:
    """A whole one of a writer."""
    usual: dict[str, Any] = {
        "experiment_id": EXPERIMENT,
        "file": f"{role}-{index}",
        "verdict": "clean",
        "problem": None,
        "being_written": False,
        "skipped_bytes": 0,
        "segment_id": f"{role}-{index}-{host}",
        "role": role,
        "process_index": index,
        "host": host,
        "boot_id": "boot",
        "pid": 1,
        "monotonic_ns": ORIGIN_NS,
        "wall_ns": ORIGIN_NS + OFFSET_NS,
        "lost_bytes": 0,
        "applied_bytes": 0,
        "samples": 0,
    }
    return Segment(**usual | more)


Written = tuple[Segment, Sequence[Dated]]


def derive(*written: Written, **options: Any) -> Derived:
    """The result of what these wrote."""
    segments = [
        Segment(
            **{name: getattr(each, name) for name in Segment.__struct_fields__}
            | {"samples": _samples(events)}
        )
        for each, events in written
    ]
    facts = [
        Fact(segment_id=each.segment_id or "", at_ns=at(second), event=event)
        for each, events in written
        for second, event in events
        if not isinstance(event, SamplesTaken | RequestsCompleted)
    ]
    held = [each for each in (_held(*one) for one in written) if each]
    requests = {each.segment_id or "": HeldRequests(_requests(events)) for each, events in written}
    source = Held([fact.at_ns for fact in facts], [each for of_one in held for each in of_one], requests)
    return derive_experiment(source, ExperimentFacts(EXPERIMENT, segments, facts), **options)


def usual(
    *,
    worker: Sequence[Dated] | None = None,
    sampler: Sequence[Dated] | None = None,
    supervisor: Sequence[Dated] | None = None,
    change: Change = lambda second, event: event,
) -> Derived:
    """One process, with what somebody said changed, or left out where it becomes None."""
    written: list[Written] = [
        (segment("supervisor"), supervisor_events() if supervisor is None else supervisor),
        (segment("worker", index=0), worker_events() if worker is None else worker),
        (segment("sampler", index=0), sampler_events() if sampler is None else sampler),
    ]
    return derive(*((who, changed(said, change)) for who, said in written))


def changed(said: Sequence[Dated], change: Change) -> list[Dated]:
    """What is left of it."""
    found = ((second, change(second, event)) for second, event in said)
    return [(second, event) for second, event in found if event is not None]


def reasons(derived: Derived) -> list[str]:
    """What stands against its result."""
    return [] if derived.result is None else [reason.text for reason in derived.result.invalid_reasons]


def _samples(events: Sequence[Dated]) -> int:
    return sum(event.count for _, event in events if isinstance(event, SamplesTaken))


def _requests(events: Sequence[Dated]) -> list[tuple[int, str, Any]]:
    return [
        (number, event.window, event.requests)
        for number, (_, event) in enumerate(events)
        if isinstance(event, RequestsCompleted)
    ]


def _held(writer: Segment, events: Sequence[Dated]) -> list[HeldSamples]:
    return [_decoded(writer, event) for _, event in events if isinstance(event, SamplesTaken) and event.count]


def _decoded(writer: Segment, event: SamplesTaken) -> HeldSamples:
    found = columns.unpack_all([event])
    of_table = {}
    for name in POSSIBLE:
        of_log, units = SAMPLE_UNITS[name]
        values, missing = found[of_log]
        doubles = values / (units or 1)
        of_table[name] = doubles if missing is None else np.where(missing, np.nan, doubles)
    device = Device(writer.process_index, event.device_uuid)
    return HeldSamples(device, writer.segment_id or "", found["at_ns"].values, of_table)
