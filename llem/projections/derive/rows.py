"""Results of experiments as rows, replaced as a whole whenever the log grew."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from llem.plan import ModelPlan
from llem.projections.containment import check_memory, reason_against, set_aside
from llem.projections.database import MAX_ROWS, Rows, Tables, release_cache
from llem.projections.derive.batches import batch_rows
from llem.projections.derive.calibrations import calibrations
from llem.projections.derive.clocks import timestamp
from llem.projections.derive.energy import baseline_power_w, device_energy, read_counter
from llem.projections.derive.experiment import Derived, derive_experiment, log_warnings
from llem.projections.derive.history import ProcessFacts, Segment, Window
from llem.projections.derive.process import Measured, process_status
from llem.projections.derive.reading import read_experiments
from llem.projections.derive.regions import region_rows
from llem.projections.derive.request_shares import IN_DRAIN_REASON
from llem.projections.derive.samples import DeviceSamples, load_samples
from llem.projections.derive.source import Source, Span
from llem.projections.derive.spans import window_span
from llem.projections.derive.stored import Places, Stored, rows_of
from llem.projections.ranges import check_ranges
from llem.results import RESULTS_VERSION, ExperimentResult, figures
from llem.results.figures import EXPERIMENT_FIGURES, PROCESS_FIGURES
from llem.results.nullable import ratio
from llem.units import MW_PER_W, NS_PER_S, seconds
from llem_events.events import (
    ClocksCompared,
    HostJoined,
    MeteredDevice,
    ModelLoaded,
    SensorCalibrated,
    StudyPlace,
)

DERIVED_TABLES = (
    "experiments",
    "hosts",
    "processes",
    "devices",
    "calibrations",
    "windows",
    "batches",
    "request_shares",
    "warnings",
    "raw_process_results",
    "experiment_results",
)
MAX_REQUESTS = 20_000  # of the experiments that are derived in one transaction; bounds their memory
MAX_EXPERIMENTS = 64


def derive(tables: Tables, experiment_ids: Sequence[str]) -> None:
    """Replace the derived rows of the experiments, some in one transaction; one that cannot be derived is set aside."""
    for experiment_id, reason in failing(tables, experiment_ids):
        set_aside(tables, experiment_id, reason)
        with tables.transaction():
            _replace(tables, [experiment_id], rows_of(tables.connection, [experiment_id]))


def failing(tables: Tables, experiment_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Replace the derived rows of the experiments; yields each that cannot be derived, of which nothing was changed, and why."""
    if not experiment_ids:
        return
    tables.course.begin("deriving results", len(experiment_ids), "experiments")
    places = rows_of(tables.connection, experiment_ids)
    for group in _groups(tables, experiment_ids):
        reason = _try(tables, group, places)
        release_cache(tables.connection)
        tables.course.complete(len(group))
        for experiment_id in group if reason is not None else ():
            reason = _try(tables, [experiment_id], places)
            if reason is not None:
                yield experiment_id, reason
                places = rows_of(tables.connection, experiment_ids)  # it may be deleted by now


def _try(tables: Tables, experiment_ids: Sequence[str], places: Mapping[str, Places]) -> str | None:
    """None where all went well; else why nothing was changed."""
    try:
        with tables.transaction():
            _replace(tables, experiment_ids, places)
    except Exception as error:  # noqa: BLE001 -- whatever a log brings about is its own experiment's damage
        return reason_against(error)
    return None


def _groups(tables: Tables, experiment_ids: Sequence[str]) -> Iterator[list[str]]:
    sizes = tables.connection.execute("SELECT experiment_id, sum(requests) FROM segments GROUP BY ALL")
    requests = dict(sizes.fetchall())
    group: list[str] = []
    weight = 0
    for experiment_id in experiment_ids:
        group.append(experiment_id)
        weight += int(requests.get(experiment_id, 0))
        if weight >= MAX_REQUESTS or len(group) >= MAX_EXPERIMENTS:
            yield group
            group, weight = [], 0
    if group:
        yield group


def _replace(tables: Tables, experiment_ids: Sequence[str], places: Mapping[str, Places]) -> None:
    for table in DERIVED_TABLES:
        tables.delete_experiments(table, experiment_ids)
    rows: dict[str, Rows] = {table: [] for table in DERIVED_TABLES}
    offsets: Rows = []
    for facts, source in read_experiments(tables.connection, experiment_ids, places):
        if not facts.segments:
            continue
        if facts.refused is None:
            if isinstance(source, Stored):
                samples = sum(segment.samples for segment in facts.segments)
                check_memory(token_times=source.totals.token_times, samples=samples)
            check_ranges(source, facts)
        derived = derive_experiment(source, facts)
        for table, new in derived_rows(source, derived).items():
            rows[table] = _insert_while_many(tables, table, rows[table], new)
        offsets += clock_offsets(derived)
        if isinstance(source, Stored):
            release_cache(tables.connection)
    for table, left in rows.items():
        tables.insert(table, left)
    _mark(tables, offsets)


def _insert_while_many(tables: Tables, table: str, held: Rows, new: Iterable[dict[str, Any]]) -> Rows:
    """Hold more rows, insert them whenever they are many, and return those that are left."""
    for row in new:
        held.append(row)
        if len(held) >= MAX_ROWS:
            tables.insert(table, held)
            held = []
    return held


def _check_types(result: ExperimentResult | None) -> None:
    """Raises ValidationError for a result that could be stored and not be read again: a plan in the log may hold anything."""
    if result is not None:
        msgspec.json.decode(msgspec.json.encode(result), type=ExperimentResult)


def _mark(tables: Tables, offsets: Rows) -> None:
    """Say in each segment's checkpoint that the results include it, and which clock they were placed by."""
    kind = "STRUCT(experiment_id VARCHAR, file VARCHAR, offset_ns BIGINT)[]"
    tables.connection.execute(
        "UPDATE segments SET derived_blocks = blocks, clock_offset_ns = derived.offset_ns "
        f"FROM (SELECT unnest(?::JSON::{kind}, max_depth := 2)) AS derived "
        "WHERE segments.experiment_id = derived.experiment_id AND segments.file = derived.file",
        [msgspec.json.encode(offsets).decode()],
    )


def warnings(derived: Derived) -> Rows:
    """One row per doubt."""
    of_processes: Rows = [
        {"process_index": measured.process.process_index, **msgspec.structs.asdict(doubt)}
        for measured in derived.measured
        for doubt in measured.result.warnings
    ]
    result = derived.result
    joined = result.aggregation.warnings if result and result.aggregation else []
    imported = result.measurement_warnings if result and not derived.measured else []
    coded = [("aggregation", joined), ("imported", imported)]
    whole: Rows = [{"code": code, "text": text} for code, texts in coded for text in texts]
    of_the_log: Rows = [msgspec.structs.asdict(doubt) for doubt in log_warnings(derived)]
    return [
        {"experiment_id": derived.facts.experiment_id, **row} for row in [*of_processes, *of_the_log, *whole]
    ]


def raw_process_results(derived: Derived) -> Rows:
    """One row per process that measured."""
    if derived.result is None:
        return []
    spans = {
        measured.process.segment.process_index: derived.wall_span(measured) for measured in derived.measured
    }
    return [
        _with_times(figures.row(PROCESS_FIGURES, result), spans.get(result.process_index))
        for result in derived.result.process_results
    ]


def experiment_results(derived: Derived) -> Rows:
    """One row, with NULL for every figure where nothing was measured."""
    started = derived.facts.started
    planned = {
        "experiment_id": derived.facts.experiment_id,
        "name": derived.facts.plan.get("name"),
        "status": derived.status,
        "expected_processes": started.expected_processes if started else None,
        "cell_hash": started.cell_hash if started else None,
        **_place_in_study(started.study if started else None),
    }
    if derived.result is None:
        return [_not_measured(derived) | planned]
    meters = [measured.process.meter.meter for measured in derived.measured if measured.process.meter]
    row = figures.row(EXPERIMENT_FIGURES, derived.result) | planned | {"meter": next(iter(meters), None)}
    return [_with_times(row, (derived.start_ns, derived.end_ns) if derived.measured else None)]


def _place_in_study(place: StudyPlace | None) -> dict[str, Any]:
    if place is None:
        return {}
    return {
        "study_id": place.study_id,
        "cell": place.cell,
        "block": place.block,
        "position": place.position,
    }


def _not_measured(derived: Derived) -> dict[str, Any]:
    """What the plan alone says."""
    facts, started = derived.facts, derived.facts.started
    plan = facts.plan
    return {
        **_planned(plan, is_program=started is not None and bool(started.command)),
        "processes": 0,
        "invalid_reasons": [],
        "labels": facts.labels(started.labels if started else {}),
        "measurement_config_hash": started.measurement_config_hash if started else None,
        "results_version": RESULTS_VERSION,
    }


def _planned(plan: dict[str, Any], *, is_program: bool) -> dict[str, Any]:
    """Model and engine, where the plan's are what would have been measured: not those that stand in every plan of a program or a server."""
    if is_program:
        return {"engine": "command"}
    engine, model = plan.get("engine", {}), plan.get("model", {}).get("name")
    if (server := plan.get("server", {}).get("kind")) is not None:
        return {"model_name": None if model == ModelPlan().name else model, "engine": server}
    return {"model_name": model, "engine": engine.get("name"), "batch_size": engine.get("batch_size")}


def _with_times(row: dict[str, Any], span: Span | None) -> dict[str, Any]:
    """On the clock of the log, to the nanosecond; what was imported has its own times."""
    start_ns, end_ns = span or (row["start_ns"], row["end_ns"])
    times = {"start_time": timestamp(start_ns), "end_time": timestamp(end_ns)}
    return row | times | {"start_ns": start_ns, "end_ns": end_ns}


def experiments(derived: Derived) -> Rows:
    """One row."""
    facts, started = derived.facts, derived.facts.started
    supervisor = next((segment for segment in facts.segments if segment.role == "supervisor"), None)
    started_ns = supervisor.wall_ns if supervisor else None
    return [
        {
            "experiment_id": facts.experiment_id,
            "name": started.plan.get("name") if started else None,
            "status": derived.status,
            "problem": _problem(derived),
            "salvaged": any(segment.missing_bytes > 0 for segment in facts.segments),
            "expected_processes": started.expected_processes if started else None,
            "labels": facts.labels(started.labels if started else {}),
            "plan": started.plan if started else None,
            "command": (started.command or None) if started else None,
            "measurement_config_hash": started.measurement_config_hash if started else None,
            "llem_version": started.llem_version if started else None,
            "started_ns": started_ns,
            "started_time": timestamp(started_ns),
        }
    ]


def _problem(derived: Derived) -> str | None:
    facts = derived.facts
    if facts.refused is not None:
        return f"{facts.refused.file}: {facts.refused.problem}"
    if facts.interrupted is not None:
        return facts.interrupted.reason
    failures = (process.failed for process in facts.processes if process.failed is not None)
    lost = (warning.text for warning in facts.warnings if warning.code == "rank_lost")
    return next(chain((f"{failed.stage}: {failed.message}" for failed in failures), lost), None)


def hosts(derived: Derived) -> Rows:
    """One row per rank."""
    segments = {segment.segment_id: segment for segment in derived.facts.segments}
    compared = {(event.rank, event.position): event for event in derived.facts.every(ClocksCompared)}
    return [
        _host_row(derived, segments[fact.segment_id], fact.event, compared)
        for fact in derived.facts.all
        if isinstance(fact.event, HostJoined)
    ]


def _host_row(
    derived: Derived,
    segment: Segment,
    joined: HostJoined,
    compared: Mapping[tuple[int, str], ClocksCompared],
) -> dict[str, Any]:
    before, after = (compared.get((joined.rank, position)) for position in ("before", "after"))
    return {
        "experiment_id": derived.facts.experiment_id,
        "rank": joined.rank,
        "ranks": joined.size,
        "host": joined.host,
        "launcher": joined.launcher,
        "local_rank": joined.local_rank,
        "local_size": joined.local_size,
        "node_rank": joined.node_rank,
        "restarts": joined.restart,
        "clock_offset_ns": before.offset_ns if before else None,
        "clock_offset_after_ns": after.offset_ns if after else None,
        "monotonic_offset_ns": before.monotonic_offset_ns if before else None,
        "monotonic_offset_after_ns": after.monotonic_offset_ns if after else None,
        "clock_error_ns": before.error_ns if before else None,
        "clock_error_after_ns": after.error_ns if after else None,
        "placement_error_ns": derived.clocks.errors_ns.get(segment.clock),
    }


def processes(derived: Derived) -> Rows:
    """One row per worker."""
    return [_process_row(derived, process) for process in derived.facts.processes]


def _process_row(derived: Derived, process: ProcessFacts) -> dict[str, Any]:
    started, model, warmup = process.started, process.model, process.warmup
    meter, sampling = process.meter, process.sampling
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "segment_id": process.segment.segment_id,
        "host": process.host,
        "group_id": started.group_id if started else None,
        "group_rank": started.group_rank if started else None,
        "pid": process.segment.pid,
        "status": "running" if _is_running(derived, process) else process_status(process),
        "problem": f"{process.failed.stage}: {process.failed.message}" if process.failed else None,
        "engine": started.engine if started else None,
        "model_name": model.model_name if model else None,
        "weights": model.weights if model else None,
        "dtype": model.dtype if model else None,
        "device": model.device if model else None,
        **_used(model),
        "parameters": model.parameters if model else None,
        "load_sec": seconds(model.load_time_ns) if model and model.load_time_ns is not None else None,
        "warmup_batches": len(warmup.latencies_ms) if warmup else None,
        "warmup_converged": warmup.converged if warmup else None,
        "prompt_set_sha256": process.prompts.prompt_set_sha256 if process.prompts else None,
        "meter": meter.meter if meter else None,
        "sample_hz": meter.sample_hz if meter else None,
        "samples_dropped": sampling.samples_dropped if sampling else None,
        "deadlines_missed": sampling.deadlines_missed if sampling else None,
        "versions": started.versions if started else {},
        "environment": started.environment if started else None,
    }


def _used(model: ModelLoaded | None) -> dict[str, Any]:
    """What the engine really used."""
    if model is None:
        return {"unknown": {}}
    return {
        "attention": model.attention,
        "cache": model.cache,
        "compiled": model.compiled,
        "quantization": model.quantization,
        "adapter": model.adapter,
        "generation": model.generation or None,
        "unknown": model.missing,
    }


def _is_running(derived: Derived, process: ProcessFacts) -> bool:
    return derived.status == "running" and process.completed is None and process.failed is None


def devices(derived: Derived) -> Rows:
    """One row per worker and device."""
    return [
        _device(derived, process, metered, meter=meter)
        for process in derived.facts.processes
        for meter, metered in process.every_device
    ]


def _device(
    derived: Derived, process: ProcessFacts, metered: MeteredDevice, *, meter: str | None
) -> dict[str, Any]:
    device, before = metered.device, process.baselines.get("before")
    powers = {power.device_uuid: power for power in (before.devices if before else [])}
    power = powers.get(device.uuid)
    tick_ns, limit_mw = metered.counter_tick_ns, device.power_limit_mw
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "host": device.host,
        "device_uuid": device.uuid,
        "device_index": device.index,
        "device_name": device.name,
        "kind": device.kind,
        "mig_profile": device.mig_profile,
        "parent_uuid": device.parent_uuid,
        "pci_id": device.pci_id,
        "memory_bytes": device.memory_bytes,
        "power_limit_w": None if limit_mw is None else limit_mw / MW_PER_W,
        "meter": meter,
        "energy_source": metered.energy_source,
        "power_kind": metered.power_kind,
        "counter_tick_sec": None if tick_ns is None else tick_ns / NS_PER_S,
        "baseline_power_w": power.mean_power_w if power else None,
        "baseline_std_w": power.std_power_w if power else None,
        "baseline_age_sec": before.age_s if before else None,
        "baseline_after_w": baseline_power_w(process, device.uuid, "after"),
        "missing": metered.missing,
        **_calibration(process.calibration_of(metered)),
    }


def _calibration(calibrated: SensorCalibrated | None) -> dict[str, Any]:
    """What the figures of a device rely on."""
    if calibrated is None:
        return {}
    return {
        "calibrated_by": calibrated.experiment_id,
        "calibration_age_sec": calibrated.age_s,
        "counter_over_power": calibrated.counter_over_power.value,
    }


def windows(source: Source, derived: Derived) -> Rows:
    """One row per window and device, or per window where there is none."""
    rows: Rows = []
    read = _read_samples(derived.measured)
    for process in derived.facts.processes:
        for window in process.windows:
            span = window_span(source, process, window)
            named = _named(derived, process, window, span)
            for _, metered in process.every_device:
                key = (process.segment.segment_id, metered.device.uuid, span)
                samples = read.get(key) or load_samples(source, process, metered.device.uuid, span)
                rows.append(named | _window_energy(process, metered, window, samples))
            if not process.every_device:
                rows.append(named)
    return rows


def _read_samples(measured: Sequence[Measured]) -> Mapping[tuple[str | None, str, Span], DeviceSamples]:
    """What was read for the results, by segment of the worker, device and span."""
    return {
        (seen.process.segment.segment_id, metered.device.uuid, samples.span): samples
        for seen in measured
        for metered, spanned in zip(seen.process.devices, seen.samples, strict=True)
        for samples in spanned
    }


def _named(derived: Derived, process: ProcessFacts, window: Window, span: Span) -> dict[str, Any]:
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "kind": window.opened.kind,
        "window_index": window.opened.window_index,
        "opened_ns": span[0],
        "closed_ns": span[1],
        "closed": window.closed is not None,
        "start_time": timestamp(derived.clocks.wall_ns(process.segment, span[0])),
        "end_time": timestamp(derived.clocks.wall_ns(process.segment, span[1])),
        "duration_sec": seconds(span[1] - span[0]),
    }


def _window_energy(
    process: ProcessFacts, metered: MeteredDevice, window: Window, samples: DeviceSamples
) -> dict[str, Any]:
    uuid = metered.device.uuid
    energy = device_energy(process, metered, [samples], [read_counter(window, uuid)])
    return {
        "device_uuid": uuid,
        "energy_j": energy.energy_j,
        "energy_source": energy.energy_source,
        "counter_energy_j": energy.counter_energy_j,
        "integrated_energy_j": energy.integrated_energy_j,
        "integration": energy.integration,
        "trapezoid_energy_j": energy.trapezoid_energy_j,
        "energy_disagreement": energy.disagreement,
        "energy_uncertainty_j": energy.uncertainty_j,
        "mean_power_w": ratio(energy.energy_j, samples.duration_sec),
        "samples": samples.count,
        "reason": energy.reason,
    }


def request_share_rows(derived: Derived) -> Iterator[dict[str, Any]]:
    """One row per request of every server."""
    for measured in derived.measured:
        if measured.shares is None:
            continue
        named = {
            "experiment_id": measured.process.segment.experiment_id,
            "process_index": measured.process.process_index,
        }
        shares = measured.shares
        columns = (shares.ids.tolist(), shares.energy_j.tolist(), shares.are_whole.tolist())
        for request_id, energy_j, is_whole in zip(*columns, strict=True):
            reason = None if is_whole else IN_DRAIN_REASON
            yield named | {"request_id": request_id, "energy_attributed_j": energy_j, "reason": reason}


def clock_offsets(derived: Derived) -> Rows:
    """Which clock each segment was placed by."""
    return [
        {
            "experiment_id": segment.experiment_id,
            "file": segment.file,
            "offset_ns": derived.clocks.offset_ns(segment),
        }
        for segment in derived.facts.segments
    ]


def derived_rows(source: Source, derived: Derived) -> Mapping[str, Iterable[dict[str, Any]]]:
    """The rows of every derived table. Raises ValidationError for a result that could not be read again."""
    _check_types(derived.result)
    return {
        "experiments": experiments(derived),
        "hosts": hosts(derived),
        "processes": processes(derived),
        "devices": devices(derived),
        "calibrations": calibrations(source, derived),
        "windows": chain(windows(source, derived), region_rows(source, derived)),
        "batches": batch_rows(derived),
        "request_shares": request_share_rows(derived),
        "warnings": warnings(derived),
        "raw_process_results": raw_process_results(derived),
        "experiment_results": experiment_results(derived),
    }
