"""Experiments that no llem of ours would write: a good one with something extreme, negative, reversed, missing, repeated or foreign in it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from llem.store import Store
from llem_events import LogError, Reading, SegmentHeader, SegmentWriter, columns
from llem_events.events import (
    BaselineMeasured,
    ClockRead,
    Event,
    ExperimentInterrupted,
    ExperimentStarted,
    LogFailed,
    ProcessFailed,
    PromptsEncoded,
    ResultImported,
    SamplesDropped,
    SamplesTaken,
    ServerMetricsRead,
    StudyPlace,
    WarmupCompleted,
    WarningRaised,
)
from tests.world import (
    NS,
    OFFSET_NS,
    ORIGIN_NS,
    Dated,
    Unsynced,
    at,
    header_of,
    sampler_events,
    supervisor_events,
    worker_events,
)

PREDECESSOR = msgspec.json.decode(
    (Path(__file__).parents[1] / "export" / "predecessor_result.json").read_bytes()
)
EXTREMES: list[Any] = [
    *(0, 1, -1, 2**31 - 1, 2**31, 2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)),
    *(0.5, -0.5, 1e30, 1.7e308, math.nan, math.inf, -math.inf),
    *(None, True, "", "x" * 3000, "\0", "\x1b[2J", "ключ", b"\xff\xfe", [], {}, [None], {"": None}, [[[]]]),
]
USUAL: list[Dated] = [
    (5.5, PromptsEncoded(prompts=10, input_tokens=80, prompt_set_sha256="0" * 64)),
    (5.6, ClockRead(monotonic_ns=ORIGIN_NS + 6 * NS, wall_ns=ORIGIN_NS + OFFSET_NS + 6 * NS)),
    (
        8.5,
        WarmupCompleted(
            latencies_ms=[250.0], coefficient_of_variation=0.01, converged=True, reason="it settled"
        ),
    ),
]
UNUSUAL: list[Dated] = [
    (9.0, WarningRaised(code="odd", text="odd", value=1.0, threshold=0.5, device_uuid="GPU-0")),
    (9.0, SamplesDropped(count=3, reason="odd")),
    (9.0, LogFailed(error="odd", events_lost=3)),
    (9.0, ProcessFailed(process_index=0, error_type="Odd", message="odd", stage="measuring")),
    (9.0, ExperimentInterrupted(reason="odd", processes_completed=1, processes_failed=0)),
    (9.0, BaselineMeasured(position="after", duration_s=2.0, devices=[], age_s=5.0, reused_from="run-0")),
    (9.0, ResultImported(format="llenergymeasure-2.0", file_name="x", file_sha256="x", original=b"{}")),
    (9.0, ServerMetricsRead(names=["waiting", "running"], times_ns=[at(6.0)], values=[[1.0], [None]])),
    (
        9.0,
        ExperimentStarted(
            experiment_id="odd",
            plan={},
            measurement_config_hash="0" * 64,
            expected_processes=1,
            labels={},
            llem_version="0",
            study=StudyPlace(study_id="study", cell_index=0, cell={}, block=0, position=0),
        ),
    ),
]
HEADER_FIELDS = SegmentHeader.__struct_fields__
Place = tuple[str | int, ...]


class Message(msgspec.Struct, frozen=True):
    """One event as it will stand in the log, whatever it says."""

    type: str
    version: int
    at_ns: int
    body: Any


class Odd(msgspec.Struct, frozen=True):
    """Segments of an experiment, each its header's fields and its messages, and what was done to them."""

    what: str
    segments: list[tuple[dict[str, Any], list[Message]]]

    def __repr__(self) -> str:
        """What was done, without the thousands of events that it was done to."""
        return f"Odd({self.what!r})"


def good() -> list[tuple[dict[str, Any], list[Message]]]:
    """The experiment that every odd one is made of: supervisor, worker, sampler."""
    return [
        ({"role": "supervisor", "process_index": None}, _messages(supervisor_events())),
        ({"role": "worker", "process_index": 0}, _messages(sorted([*worker_events(), *USUAL], key=_second))),
        ({"role": "sampler", "process_index": 0}, _messages(sampler_events(hz=2.0))),
    ]


def _messages(events: Sequence[Dated]) -> list[Message]:
    return [Message(event.TYPE, event.VERSION, at(second), _whole(event)) for second, event in events]


def _whole(part: Any) -> Any:
    """Structs as maps, with the fields that stand at their defaults too."""
    if isinstance(part, msgspec.Struct):
        return {name: _whole(getattr(part, name)) for name in part.__struct_fields__}
    if isinstance(part, list):
        return [_whole(one) for one in part]
    return part


def _second(dated: Dated) -> float:
    return dated[0]


def write(store: Store, odd: Odd, experiment_id: str) -> None:
    """The experiment as a folder of the log. A header that cannot even be written leaves its segment out."""
    folder = store.log_path / experiment_id
    folder.mkdir(mode=0o700)
    for number, (fields, messages) in enumerate(odd.segments):
        name = f"{number}-{fields.get('role')!s:.10}".replace("/", "_").replace("\0", "_")
        usual = msgspec.structs.asdict(header_of(name, experiment_id=experiment_id))
        try:
            writer = SegmentWriter(
                folder / f"{number}.events.zst",
                SegmentHeader(**usual | fields),
                sync="close",
                files=Unsynced(),
            )
            for message in messages:
                packed = msgspec.msgpack.encode((message.type, message.version, message.at_ns, message.body))
                writer.append_message(packed, at_ns=ORIGIN_NS)
            writer.seal()
            writer.close()
        except (LogError, TypeError, OverflowError, ValueError):
            (folder / f"{number}.events.zst").unlink(missing_ok=True)


def places(body: Any, before: Place = ()) -> Iterator[Place]:
    """Every place in nested maps and lists, the whole ones too."""
    yield before
    parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, part in parts:
        yield from places(part, (*before, name))


def at_place(body: Any, place: Place) -> Any:
    """What stands there."""
    for name in place:
        body = body[name]
    return body


def replaced(body: Any, place: Place, value: Any) -> Any:
    """The same with another value there; where the value is `...`, without it."""
    if not place:
        return value
    name, *rest = place
    if isinstance(body, dict):
        if not rest and value is ...:
            return {key: part for key, part in body.items() if key != name}
        return body | {name: replaced(body[name], tuple(rest), value)}
    parts = list(body)
    if not rest and value is ...:
        del parts[int(name)]
    else:
        parts[int(name)] = replaced(parts[int(name)], tuple(rest), value)
    return parts


@st.composite
def values(draw: st.DrawFn, before: Any) -> Any:
    """Something else: extreme, foreign, missing, or what was there negative, larger, reversed or repeated."""
    made: list[Any] = [...]
    if isinstance(before, int | float) and not isinstance(before, bool):
        made += [-before, before * 2, before // 2, before + 10**9, before - 10**9, before * 1000, before + 1]
    if isinstance(before, list):
        made += [before[::-1], before + before, before[1:]]
    if isinstance(before, str):
        made += [before + before, before.upper()]
    return draw(st.sampled_from(made + EXTREMES))


def added(event: Event, place: Place, value: Any) -> Odd:
    """A good experiment whose supervisor wrote one event more, with another value in it."""
    segments = good()
    (message,) = _messages([(9.0, event)])
    body = replaced(message.body, place, value)
    segments[0][1].insert(1, msgspec.structs.replace(message, body=body))
    return Odd(f"{message.type} with {place} = {value!r:.80}", segments)


@st.composite
def changed_fields(draw: st.DrawFn) -> Odd:
    """One field of one event has another value; of every kind of event equally often."""
    segments = good()
    number = draw(st.integers(0, 2))
    fields, messages = segments[number]
    kind = draw(st.sampled_from(sorted({message.type for message in messages})))
    index = draw(st.sampled_from([i for i, message in enumerate(messages) if message.type == kind]))
    place = draw(st.sampled_from(list(places(messages[index].body))))
    value = draw(values(at_place(messages[index].body, place)))
    if place == () and value is ...:
        value = {}
    body = replaced(messages[index].body, place, value)
    messages[index] = msgspec.structs.replace(messages[index], body=body)
    segments[number] = (fields, messages)
    return Odd(f"{kind} {index} of segment {number}: {place} = {value!r:.80}", segments)


@st.composite
def added_events(draw: st.DrawFn) -> Odd:
    """An event that a good run does not have, one field of which may be something else."""
    segments = good()
    number = draw(st.integers(0, 2))
    (message,) = _messages([draw(st.sampled_from(UNUSUAL))])
    if draw(st.booleans()):
        place = draw(st.sampled_from([place for place in places(message.body) if place]))
        body = replaced(message.body, place, draw(values(at_place(message.body, place))))
        message = msgspec.structs.replace(message, body=body)
    segments[number][1].insert(1, message)
    return Odd(f"{message.type} in segment {number}: {message.body!r:.120}", segments)


@st.composite
def changed_samples(draw: st.DrawFn) -> Odd:
    """Some readings of the sampler have another value in one column."""
    segments = good()
    messages = segments[2][1]
    index = draw(
        st.sampled_from([i for i, message in enumerate(messages) if message.type == SamplesTaken.TYPE])
    )
    column = draw(st.sampled_from(Reading._fields))
    value = draw(st.sampled_from([0, -1, 2**15, 2**31, 2**62, 2**63 - 1, -(2**63), None]))
    start = at(0.55 + (index - 1))
    readings = [
        Reading(at_ns=start + number * 500_000_000, power_mw=100_000, temperature_c=60, throttle_reasons=0)
        for number in range(2)
    ]
    if column == "at_ns" and value is None:
        value = start - 5 * 10**9
    readings[0] = readings[0]._replace(**{column: value})
    event = columns.pack(readings, meter="nvml", device_uuid="GPU-0")
    (message,) = _messages([(0.0, event)])
    messages[index] = msgspec.structs.replace(messages[index], body=message.body)
    return Odd(f"samples {index}: {column} = {value}", segments)


@st.composite
def changed_events(draw: st.DrawFn) -> Odd:
    """One event is missing, there twice, at another time, in another place, or of another type or version."""
    segments = good()
    number = draw(st.integers(0, 2))
    messages = segments[number][1]
    index = draw(st.integers(0, len(messages) - 1))
    message = messages[index]
    how = draw(st.sampled_from(["missing", "twice", "moved", "time", "type", "version", "reversed", "empty"]))
    match how:
        case "missing":
            del messages[index]
        case "twice":
            messages.insert(index, message)
        case "moved":
            messages.insert(draw(st.integers(0, len(messages) - 1)), messages.pop(index))
        case "time":
            at_ns = draw(values(message.at_ns))
            messages[index] = msgspec.structs.replace(message, at_ns=0 if at_ns is ... else at_ns)
        case "type":
            kind = draw(
                st.sampled_from([other.type for _, found in good() for other in found] + ["novelty_seen", ""])
            )
            messages[index] = msgspec.structs.replace(message, type=kind)
        case "version":
            version = draw(st.sampled_from([0, 1, 2, 99, 2**31, -1]))
            messages[index] = msgspec.structs.replace(message, version=version)
        case "reversed":
            messages.reverse()
        case "empty":
            messages.clear()
    return Odd(f"{how}: {message.type} {index} of segment {number}", segments)


@st.composite
def changed_headers(draw: st.DrawFn) -> Odd:
    """One field of one header has another value."""
    segments = good()
    number = draw(st.integers(0, 2))
    fields, messages = segments[number]
    name = draw(st.sampled_from(HEADER_FIELDS))
    value = draw(
        st.sampled_from([*EXTREMES, ORIGIN_NS, 7, "worker", "sampler", "import", "other", bytes(16)])
    )
    segments[number] = (fields | {name: value}, messages)
    return Odd(f"header of segment {number}: {name} = {value!r:.80}", segments)


@st.composite
def changed_segments(draw: st.DrawFn) -> Odd:
    """A segment is missing, or there twice under ids of their own."""
    segments = good()
    number = draw(st.integers(0, 2))
    if draw(st.booleans()):
        del segments[number]
        return Odd(f"segment {number} is missing", segments)
    segments.append(segments[number])
    return Odd(f"segment {number} is there twice", segments)


@st.composite
def changed_imports(draw: st.DrawFn) -> Odd:
    """An imported result, one field of which an older llem would have taken and this one refuses."""
    place = draw(st.sampled_from([place for place in places(PREDECESSOR) if place]))
    value = draw(values(at_place(PREDECESSOR, place)))
    body = replaced(PREDECESSOR, place, value)
    if draw(st.booleans()):
        body = body | {"valid": True}
    try:
        original = msgspec.json.encode(body)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        original = repr(body).encode()
    event = {
        "format": "llenergymeasure-2.0",
        "file_name": "x.json",
        "file_sha256": "x",
        "original": original,
    }
    message = Message("result_imported", 1, at(0.0), event)
    return Odd(f"import: {place} = {value!r:.80}", [({"role": "import", "process_index": None}, [message])])


def odd_experiments() -> st.SearchStrategy[Odd]:
    """Any of these; fields most often, for there are most of them."""
    return st.one_of(
        changed_fields(),
        changed_fields(),
        changed_fields(),
        changed_events(),
        added_events(),
        changed_headers(),
        changed_samples(),
        changed_imports(),
        changed_segments(),
    )


def figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a valid result has to have in common with the good one: all that was measured, nothing that was only stated."""
    names = ("duration_sec", "requests", "failed_requests", "input_tokens", "output_tokens", "total_tokens")
    names += ("total_energy_j", "energy_source", "tokens_per_second", "avg_energy_per_token_j", "processes")
    names += ("ttft_mean_ms", "itl_mean_ms", "e2e_mean_ms", "ttft_p99_ms", "e2e_p99_ms", "mean_power_w")
    names += ("gpu_utilisation_pct", "throttle_detected", "max_temperature_c", "baseline_power_w")
    return {name: row[name] for name in names}
