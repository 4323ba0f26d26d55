"""What the events of an experiment say, held in memory: windows, labels, settings, clocks, and what a calibration says of a device."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from llem.projections.derive.clocks import MAX_DRIFT_NS, Clocks, in_microseconds, placements, timestamp
from llem.projections.derive.energy import baseline_power_w, read_counter
from llem.projections.derive.held import Held, HeldRequests, HeldSamples
from llem.projections.derive.history import FOLLOWS_NS, ExperimentFacts, Fact, ProcessFacts, Segment, facts_of
from llem.projections.derive.sensors import Blindness, as_calibrated
from llem.projections.derive.source import POSSIBLE
from llem.projections.derive.source import Device as Sampled
from llem.projections.derive.spans import clipped, measurement_spans, portions, window_span, with_drains
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    ClockRead,
    ClocksCompared,
    Device,
    DeviceSettingChanged,
    EnergyEdge,
    Estimated,
    Event,
    ExperimentLabelled,
    MeteredDevice,
    MeterStarted,
    OtherMeter,
    ProcessCompleted,
    ProcessStarted,
    Region,
    RegionsReported,
    Request,
    SensorCalibrated,
    WarningRaised,
    WindowClosed,
    WindowOpened,
)
from tests.projections import in_memory
from tests.world import device

S = 10**9


def segment(role: str = "worker", *, index: int | None = 0, host: str = "alpha", **more: Any) -> Segment:
    """A whole one of the run, whose host's clocks are easily reckoned with."""
    usual: dict[str, Any] = {"experiment_id": "run", "monotonic_ns": 0, "wall_ns": 100 * S}
    return in_memory.segment(role, index=index, host=host, **usual | more)


WORKER = segment()


def process(*events: tuple[float, Event], plan: Mapping[str, Any] | None = None, **more: Any) -> ProcessFacts:
    facts = [Fact(segment_id="worker-0-alpha", at_ns=round(at_s * S), event=event) for at_s, event in events]
    return ProcessFacts(WORKER, facts, plan=dict(plan or {}), **more)


def window(
    kind: str, opened_s: float, closed_s: float | None, *, index: int = 0
) -> list[tuple[float, Event]]:
    opened = (opened_s, WindowOpened(kind=kind, window_index=index))
    return [opened] if closed_s is None else [opened, (closed_s, WindowClosed(kind=kind, window_index=index))]


@pytest.mark.parametrize(
    ("windows", "idling"),
    [
        ([("guard", 20 * S, 27.0)], (20 * S, 27 * S)),
        ([("guard", 20 * S + FOLLOWS_NS, 27.0)], (20 * S, 27 * S)),
        ([("guard", 20 * S + FOLLOWS_NS + 1, 27.0)], None),
        ([("guard", 20 * S - 1, 27.0)], None),
        ([("guard", 20 * S, None)], None),
        ([("drain", 20 * S, 23.0)], None),
        ([("drain", 20 * S, 23.0), ("guard", 23 * S, 27.0)], (23 * S, 27 * S)),
        ([("drain", 20 * S, 23.0), ("guard", 24 * S, 27.0)], None),
        ([], None),
    ],
)
def test_a_device_idles_in_the_guard_that_follows(
    windows: list[tuple[str, int, float | None]], idling: tuple[int, int] | None
) -> None:
    """Within half a second of the moment, or of the end of the drain that follows, up to the end of the guard where it has one."""
    told = [event for kind, opened_ns, closed_s in windows for event in window(kind, opened_ns / S, closed_s)]
    found = process(*window("measurement", 10, 20), *told)
    exact = {kind: opened_ns for kind, opened_ns, _ in windows}
    facts = [
        msgspec.structs.replace(fact, at_ns=exact.get(fact.event.kind, fact.at_ns))
        if isinstance(fact.event, WindowOpened)
        else fact
        for fact in found.all
    ]
    assert ProcessFacts(WORKER, facts, plan={}).idling_after(20 * S) == idling


def test_windows_are_those_of_a_kind_and_their_ends() -> None:
    """Each end belongs to the window of its kind and number; one that was never closed has none."""
    found = process(
        *window("measurement", 10, 20), *window("drain", 20, 22), *window("measurement", 30, None, index=1)
    )
    assert [(each.opened_ns, each.closed_ns) for each in found.windows] == [
        (10 * S, 20 * S),
        (20 * S, 22 * S),
        (30 * S, None),
    ]
    assert [each.opened.window_index for each in found.measurement_windows] == [0, 1]
    assert [each.opened_ns for each in found.drain_windows] == [20 * S]
    assert found.stray_closes == 0
    stray = process(*window("measurement", 10, 20), (21, WindowClosed(kind="measurement")))
    assert stray.stray_closes == 1
    assert process(*window("measurement", 10, 20), (21, WindowClosed(kind="guard"))).stray_closes == 1


def completed(batches: int | None) -> tuple[float, Event]:
    return 50.0, ProcessCompleted(process_index=0, batches=batches)


@pytest.mark.parametrize(
    ("pauses_s", "refresh_s", "batches", "duration_s", "shifts"),
    [
        (0.1, 0.1, 40, 20.0, 40),
        (0.1, 0.1, 40, 5.0, 10),
        (0.1, 0.1, 40, 90.0, 40),
        (0.095, 0.1, 40, 20.0, 40),
        (0.094, 0.1, 40, 20.0, 0),
        (0.1, 0.0, 40, 20.0, 0),
        (0.1, 0.1, None, 20.0, 0),
        (0.1, 0.1, 0, 20.0, 0),
        ("long", 0.1, 40, 20.0, 0),
    ],
)
def test_a_load_was_shifted_with_every_batch(
    pauses_s: object, refresh_s: float, batches: int | None, duration_s: float, shifts: int
) -> None:
    """Where the pauses are nearly as long as a refresh; of a part of the measurement as large a part."""
    plan = {"workload": {"shift_pauses_s": pauses_s}}
    measured = [*window("measurement", 10, 20), *window("measurement", 20, 30, index=1)]
    found = process(*measured, *window("guard", 30, 90), completed(batches), plan=plan)
    assert found.load_shifts(duration_s, refresh_sec=refresh_s) == shifts
    assert process(completed(40), plan=plan).load_shifts(1.0, refresh_sec=0.1) == 0
    assert process(*measured, completed(40)).load_shifts(1.0, refresh_sec=0.1) == 0


def test_regions_are_each_once() -> None:
    """What is said last of one holds, in the order of beginning."""
    told = [Region(index=index, name=name, process="1", began_ns=1, ended_ns=2) for index, name in ((1, "b"), (0, "a"), (1, "c"))]  # fmt: skip
    found = process((1, RegionsReported(regions=told[:2])), (2, RegionsReported(regions=told[2:])))
    assert [region.name for region in found.regions] == ["a", "c"]


def started(**more: Any) -> ProcessStarted:
    return ProcessStarted(process_index=0, devices=[device()], **{"engine": "vllm", **more})


def test_who_is_silent_and_who_wraps_a_program() -> None:
    """A group's first process speaks for it; an imported run is a program's where it counts no requests."""
    assert not process((1, started())).is_silent and not process().is_silent
    assert not process((1, started(group_rank=0))).is_silent
    assert process((1, started(group_rank=1))).is_silent
    assert process((1, started(engine="command"))).wraps_program
    assert not process((1, started())).wraps_program and not process().wraps_program
    imported = segment("import")
    told = Fact(segment_id="i", at_ns=1, event=ProcessCompleted(process_index=0, requests=3))
    untold = Fact(segment_id="i", at_ns=1, event=ProcessCompleted(process_index=0))
    assert not ProcessFacts(imported, [told], plan={}).wraps_program
    assert ProcessFacts(imported, [untold], plan={}).wraps_program
    assert ProcessFacts(imported, [], plan={}).wraps_program
    assert ProcessFacts(imported, [], plan={}).is_imported and not process().is_imported


def metered(**more: Any) -> MeteredDevice:
    return MeteredDevice(**{"device": device(), "energy_source": "counter", **more})


@pytest.mark.parametrize(
    ("kind", "source"), [("gpu", None), ("simulated", "simulated"), ("process", "estimated")]
)
def test_devices_are_those_that_the_worker_named_where_no_meter_started(
    kind: str, source: str | None
) -> None:
    """One that no sensor reads does not look as if one had."""
    named = msgspec.structs.replace(device(), kind=kind)
    found = process((1, msgspec.structs.replace(started(), devices=[named])))
    assert [(each.device, each.energy_source) for each in found.devices] == [(named, source)]
    assert found.beside == [] and [meter for meter, _ in found.every_device] == [None]
    assert process().devices == []


def test_devices_of_other_meters_are_beside() -> None:
    """They have no part in the idle power of the first meter's."""
    package = metered(device=Device(host="alpha", uuid="cpu", index=0, name="c", kind="cpu_package"))
    meter = MeterStarted(
        meter="nvml",
        process_index=0,
        sample_hz=10,
        devices=[metered()],
        beside=[OtherMeter(meter="rapl", devices=[package])],
    )
    idle = [BaselinePower(device_uuid=uuid, mean_power_w=power_w, std_power_w=1.0, samples=9) for uuid, power_w in (("GPU-0", 60.0), ("cpu", 30.0))]  # fmt: skip
    found = process((1, meter), (2, BaselineMeasured(position="before", duration_s=1.0, devices=idle)))
    assert [(meter, each.device.uuid) for meter, each in found.every_device] == [
        ("nvml", "GPU-0"),
        ("rapl", "cpu"),
    ]
    assert [power.device_uuid for power in found.idle_powers("before")] == ["GPU-0"]
    assert found.idle_powers("after") == []
    assert baseline_power_w(found, "cpu") == 30.0
    assert baseline_power_w(found, "cpu", "after") is None and baseline_power_w(found, "other") is None


def calibrated(**more: Any) -> SensorCalibrated:
    return SensorCalibrated(**{"host": "alpha", "device_uuid": "GPU-0", "sensor": "power_mw", **more})


def test_a_calibration_is_that_of_the_sensor_that_is_read() -> None:
    """Of this host, of the GPU that a MIG instance is part of, and the latest."""
    others = [calibrated(host="beta"), calibrated(device_uuid="GPU-1"), calibrated(sensor="power_average_mw")]
    events = [*others, calibrated(age_s=1.0), calibrated(age_s=2.0)]
    found = process(*((index, event) for index, event in enumerate(events)))
    assert found.calibration_of(metered()) is events[-1]
    assert found.calibration_of(metered(missing={"power_mw": "none"})) is others[2]
    assert found.calibration_of(metered(missing={"energy_mj": "none"})) is events[-1]
    part = msgspec.structs.replace(device(), uuid="MIG-0", parent_uuid="GPU-0")
    assert found.calibration_of(metered(device=part)) is events[-1]
    assert process().calibration_of(metered()) is None


def found_out(value: float | None, half: float | None = None) -> Estimated:
    if value is None or half is None:
        return Estimated(value=value)
    return Estimated(value=value, low=value - half, high=value + half)


@pytest.mark.parametrize(
    ("window", "averages", "window_s"),
    [
        (found_out(0.5, 0.1), "boxcar", 0.5),
        (found_out(0.5, 0.1), "none", 0.5),
        (found_out(0.5, 0.1), "other", 1.0),
        (found_out(0.9, 0.1), "boxcar", 1.0),  # what is documented lies within
        (found_out(0.9, 0.05), "boxcar", 0.9),
        (found_out(0.02, 0.01), "boxcar", 0.1),  # no less than the time between two readings
        (found_out(None), "boxcar", 1.0),
        (found_out(1.0), "boxcar", 1.0),
    ],
    ids=str,
)
def test_a_device_averages_as_its_calibration_found(
    window: Estimated, averages: str, window_s: float
) -> None:
    """Where that differs from what its meter says, which is a second."""
    known = metered(power_window_ns=S, counter_tick_ns=7)
    found = as_calibrated(
        known, calibrated(averaging_window_s=window, averages=averages, power_refresh_s=found_out(0.1))
    )
    assert found.power_window_ns == round(window_s * S)
    assert found.counter_tick_ns == 7
    assert as_calibrated(known, None) is known


def test_a_counter_ticks_as_its_calibration_found() -> None:
    """Where there is one: an estimate has none."""
    found = calibrated(energy_refresh_s=found_out(0.25))
    assert as_calibrated(metered(counter_tick_ns=7), found).counter_tick_ns == S // 4
    assert as_calibrated(metered(counter_tick_ns=7, energy_source="integrated"), found).counter_tick_ns == 7


@pytest.mark.parametrize(
    ("seen", "share"),
    [
        (Estimated(value=0.25, low=0.2, high=0.3), 0.2),
        (Estimated(value=0.25), 0.25),
        (Estimated(value=0.9, low=0.8, high=0.95), None),
        (Estimated(value=0.9, low=0.8, high=0.949), 0.8),
        (Estimated(value=0.95), None),
        (Estimated(), None),
    ],
    ids=str,
)
def test_a_sensor_may_see_the_least_of_what_was_found(seen: Estimated, share: float | None) -> None:
    """One that may see nearly all of the time is not taken for one that sees a part."""
    found = Blindness.of(calibrated(seen_share=seen, delay_s=found_out(0.02, 0.01), idle_w=found_out(70.0)))
    assert (found.seen_share, found.delay_sec, found.idle_w) == (share, 0.02, 70.0)
    assert found.delay_within_sec == pytest.approx(0.01)
    hidden_j = found.hidden_j(100.0, duration_sec=1.0, power_limit_w=None, shifts=0)
    assert hidden_j == (0.0 if share is None else None)


def test_what_is_told_late_is_bounded_by_the_limit() -> None:
    """Thirty milliseconds between idle power and the limit; nothing where nothing is late."""
    late = Blindness(delay_sec=-0.02, delay_within_sec=0.01, idle_w=100.0)
    assert late.late_j(500.0) == pytest.approx(0.03 * 400.0) and late.late_j(None) is None
    assert Blindness().late_j(None) == 0.0 and Blindness.of(None) == Blindness()


def edge(energy_mj: int | None = None, *, reason: str | None = None, uuid: str = "GPU-0") -> list[EnergyEdge]:
    return [EnergyEdge(device_uuid=uuid, at_ns=1, energy_mj=energy_mj, reason=reason)]


@pytest.mark.parametrize(
    ("opened", "closed", "energy_mj", "reason"),
    [
        (edge(5), edge(9), 4, None),
        (edge(5), edge(5), 0, None),
        (edge(5), edge(4), None, "the energy counter ran backwards"),
        (edge(0), edge(0), 0, None),
        (edge(5), edge(reason="lost"), None, "lost"),
        (edge(reason="early"), edge(reason="lost"), None, "early"),
        (edge(5), edge(9, uuid="GPU-1"), None, None),
        (edge(5), None, None, "the window was never closed"),
    ],
)
def test_a_counter_is_read_at_the_edges_of_a_window(
    opened: list[EnergyEdge], closed: list[EnergyEdge] | None, energy_mj: int | None, reason: str | None
) -> None:
    """Close minus open, or why not."""
    events: list[tuple[float, Event]] = [(1, WindowOpened(kind="measurement", edges=opened))]
    events += [] if closed is None else [(2, WindowClosed(kind="measurement", edges=closed))]
    found = read_counter(process(*events).windows[0], "GPU-0")
    assert (found.energy_mj, found.reason) == (energy_mj, reason)


def experiment(*segments: Segment, facts: Sequence[tuple[Segment, int, Event]] = ()) -> ExperimentFacts:
    of_segments = [
        Fact(segment_id=each.segment_id or "", at_ns=at_ns, event=event) for each, at_ns, event in facts
    ]
    return ExperimentFacts("run", segments, of_segments)


def test_the_later_note_holds() -> None:
    """By the clock of its writer; a label without a text is removed."""
    first, later = (segment("note", index=number, wall_ns=number * S) for number in (1, 2))
    found = experiment(
        later,
        first,
        facts=[
            (later, 0, ExperimentLabelled(labels={"a": "later", "b": None})),
            (first, 9, ExperimentLabelled(labels={"a": "first", "b": "first", "c": "first"})),
        ],
    )
    assert found.labels({"d": "before", "a": "before"}) == {"d": "before", "a": "later", "c": "first"}
    assert experiment().labels({"a": "before"}) == {"a": "before"}


def setting(asked: float | None, read_back: float | None = None, **more: Any) -> DeviceSettingChanged:
    known = {"device_uuid": "GPU-0", "setting": "power_limit_w", "before": 700.0, "asked": asked}
    return DeviceSettingChanged(**known | {"read_back": read_back, **more})


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ([setting(300.0, 299.0)], 299.0),
        ([setting(300.0)], 300.0),
        ([setting(300.0, 299.0), setting(250.0, 251.0)], 251.0),
        ([setting(300.0, 299.0), setting(100.0, 700.0, restored=True)], 299.0),
        ([setting(100.0, setting="lock_clocks_mhz"), setting(300.0)], 300.0),
        ([setting(None)], None),
        ([setting(300.0, 0.0)], 0.0),
        ([], None),
    ],
)
def test_a_setting_is_what_the_driver_says(changes: list[DeviceSettingChanged], value: float | None) -> None:
    """Of the lowest device, or what it was told; not what it was set back to."""
    own = segment("supervisor", index=None)
    assert experiment(own, facts=[(own, 0, change) for change in changes]).setting("power_limit_w") == value


def test_who_writes_of_a_process() -> None:
    """Its worker, its sampler and its load process on the same host; warnings of the experiment are a supervisor's."""
    lead, worker = segment("supervisor", index=None), segment()
    sampler, load = segment("sampler"), segment("load")
    strangers = [segment("sampler", index=1), segment("sampler", host="beta"), segment("note")]
    rank = segment("rank", index=None, host="beta")
    writers = [lead, worker, sampler, load, *strangers, rank]
    facts = [(each, 0, WarningRaised(code="c", text=each.segment_id or "")) for each in writers]
    found = experiment(*writers, facts=facts)
    assert [warning.text for warning in found.warnings] == [lead.segment_id, rank.segment_id]
    (of_worker,) = found.processes
    assert {warning.text for warning in of_worker.warnings} == {
        each.segment_id for each in (worker, sampler, load)
    }
    assert of_worker.requests_segment_id == load.segment_id
    (alone,) = experiment(worker).processes
    assert alone.requests_segment_id == worker.segment_id


def test_a_damaged_segment_refuses_rather_than_a_newer_one() -> None:
    """And none that is left out by as many bytes."""
    newer, corrupt = segment(verdict="newer"), segment("sampler", verdict="corrupt")
    salvaged = segment("load", verdict="corrupt", skipped_bytes=5)
    assert experiment(newer, corrupt, salvaged).refused is corrupt
    assert experiment(newer, segment("note")).refused is newer
    assert experiment(salvaged).refused is None
    assert msgspec.structs.replace(salvaged, lost_bytes=7).missing_bytes == 12
    assert msgspec.structs.replace(salvaged, lost_bytes=None).missing_bytes == 5


def test_imported_runs_have_a_process_where_they_name_one() -> None:
    """One that is only a result has none."""
    run, result = segment("import", index=0), segment("import", index=None, host="beta")
    assert [each.segment for each in experiment(run, result).processes] == [run]


def test_the_earliest_pair_of_clocks_counts() -> None:
    """A note of days later on the same clock does not; one on a clock of its own has nothing else."""
    lead = segment("supervisor", index=None, monotonic_ns=5 * S, wall_ns=105 * S)
    note = segment("note", monotonic_ns=0, wall_ns=300 * S)
    stranger = segment("note", host="beta", monotonic_ns=1, wall_ns=11)
    read = ClockRead(monotonic_ns=2 * S, wall_ns=102 * S + MAX_DRIFT_NS)
    clocks = Clocks(experiment(note, lead, stranger, facts=[(lead, 0, read)]))
    assert clocks.wall_ns(lead, 7) == 100 * S + MAX_DRIFT_NS + 7
    assert clocks.offset_ns(note) == clocks.offset_ns(lead)
    assert clocks.offset_ns(stranger) == 10 and clocks.stepped == {}
    further = msgspec.structs.replace(read, wall_ns=read.wall_ns + 1)
    assert Clocks(experiment(lead, facts=[(lead, 0, further)])).stepped == {
        ("alpha", "boot"): MAX_DRIFT_NS + 1
    }
    torn = segment(host="gamma", monotonic_ns=None, wall_ns=None)
    assert Clocks(experiment(lead, torn)).offset_ns(torn) is None


def compared(position: str, offset_ns: int, error_ns: int) -> ClocksCompared:
    return ClocksCompared(
        position=position,
        rank=1,
        host="beta",
        reference_host="alpha",
        offset_ns=0,
        monotonic_offset_ns=offset_ns,
        error_ns=error_ns,
        exchanges=3,
    )


@pytest.mark.parametrize(
    ("comparisons", "offset_ns", "error_ns"),
    [
        ([compared("before", 100, 7)], 100, 7),
        ([compared("before", 100, 7), compared("before", 120, 5)], 120, 5),
        ([compared("before", 100, 5), compared("before", 120, 5)], 100, 5),
        ([compared("before", 100, 7), compared("after", 110, 5)], 105, 7 + 5),
        ([compared("before", 100, 3), compared("after", 111, 5)], 105, 5 + 6),
    ],
)
def test_a_compared_clock_is_in_the_middle(
    comparisons: list[ClocksCompared], offset_ns: int, error_ns: int
) -> None:
    """Of the best comparison before and after; half of the drift is added to the bound, rounded up."""
    beta = ("beta", "boot")
    found = placements((beta, event) for event in comparisons)[beta]
    assert (found.offset_ns, found.error_ns) == (offset_ns, error_ns)
    lead, rank = segment("supervisor", index=None), segment("rank", index=None, host="beta", wall_ns=7)
    clocks = Clocks(experiment(lead, rank, facts=[(rank, 0, event) for event in comparisons]))
    assert clocks.offset_ns(rank) == 100 * S - offset_ns
    assert clocks.errors_ns == {beta: error_ns, ("alpha", "boot"): 0}


def request(ident: int, end_ns: int) -> Request:
    return Request(
        request_id=ident, batch_index=0, batch_size=1, arrival_ns=0, start_ns=0, end_ns=end_ns, input_tokens=1, output_tokens=1, finish_reason="eos"
    )  # fmt: skip


def held(*ends_s: float, kind: str = "measurement", sampled_s: Sequence[float] = ()) -> Held:
    requests = [request(number, round(end_s * S)) for number, end_s in enumerate(ends_s)]
    columns = {name: np.zeros(len(sampled_s)) for name in POSSIBLE}
    at_ns = np.array([round(each * S) for each in sampled_s], np.int64)
    samples = [HeldSamples(Sampled(0, "GPU-0"), "sampler-0-alpha", at_ns, columns)] if len(at_ns) else []
    return Held([], samples, {"worker-0-alpha": HeldRequests([(1, kind, requests)])})


@pytest.mark.parametrize(
    ("source", "end_s"),
    [
        (held(15.0, 14.0, sampled_s=[19.0]), 15.0),
        (held(9.0, sampled_s=[12.0, 19.0]), 19.0),
        (held(15.0, kind="warmup", sampled_s=[19.0]), 19.0),
        (held(9.0, sampled_s=[9.0]), 10.0),
        (held(), 10.0),
    ],
)
def test_a_window_that_was_never_closed_ends_with_what_was_last_seen(source: Held, end_s: float) -> None:
    """A request of its kind, else a sample, else nothing."""
    found = process(*window("measurement", 10, None))
    assert measurement_spans(source, found) == [(10 * S, round(end_s * S))]
    of_drain = process(*window("drain", 10, None)).windows[0]
    assert window_span(source, found, of_drain) == (10 * S, round(end_s * S))


def test_a_measurement_goes_on_to_the_end_of_its_drain() -> None:
    """One that was cut before the end of its window does not, nor one that something else follows."""
    found = process(
        *window("measurement", 10, 20),
        *window("drain", 20, 23),
        *window("measurement", 30, 40, index=1),
        *window("guard", 40, 45),
        *window("drain", 45, 47, index=1),
    )
    spans = [(10 * S, 20 * S), (10 * S, 19 * S), (30 * S, 40 * S)]
    assert with_drains(held(), found, spans) == [(10 * S, 23 * S), (10 * S, 19 * S), (30 * S, 40 * S)]


def test_parts_of_spans() -> None:
    """Those within another; what only touches is none."""
    assert clipped([(0, 10), (10, 20), (20, 30), (40, 50)], (5, 20)) == [(5, 10), (10, 20)]


def test_portions_are_about_as_large() -> None:
    """All numbers, in order, in parts of about so much."""
    numbers = np.array([3, 5, 8, 9])
    assert list(portions(numbers, np.array([4, 4, 4, 4]), most=8)) == [(3, 3), (5, 8), (9, 9)]
    assert list(portions(numbers, np.array([1, 1, 1, 1]), most=8)) == [(3, 9)]
    assert list(portions(numbers[:0], numbers[:0], most=8)) == []


def test_times_are_told_to_the_microsecond() -> None:
    """As the tables hold them."""
    assert timestamp(1_500) == "1970-01-01T00:00:00.000001" and timestamp(None) is None
    assert in_microseconds(2_999) == 2_000


def row(event: Event, number: int, **more: Any) -> dict[str, Any]:
    known = {"process_index": None, "segment_id": "s", "event_number": number, "at_ns": number}
    told = {"type": event.TYPE, "version": event.VERSION, "body": msgspec.json.encode(event).decode()}
    return {**known, **told, **more}


def test_facts_are_read_of_rows_in_the_order_of_their_writers() -> None:
    """The supervisor's first; what does not fit its type is counted, a type that nobody knows is not."""
    clock = ClockRead(monotonic_ns=1, wall_ns=2)
    rows = [
        row(clock, 1, process_index=0, segment_id="worker-0-alpha"),
        row(clock, 3, segment_id="b"),
        row(clock, 2, segment_id="b"),
        row(clock, 9, segment_id="a"),
        row(clock, 4, body="{}"),
        row(clock, 5, body=None),
        row(clock, 6, type="unheard of"),
    ]
    names = Segment.__struct_fields__
    files = [{name: getattr(segment(file=file), name) for name in names} for file in ("z", "y")]
    found = facts_of("run", files, rows)
    assert [fact.at_ns for fact in found.all] == [9, 2, 3, 1]
    assert found.misfits == 2 and [each.file for each in found.segments] == ["y", "z"]
