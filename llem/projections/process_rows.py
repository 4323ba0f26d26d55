"""Rows of experiments, processes and devices: what was planned, and what ran where."""

from typing import Any

from llem.projections.clocks import timestamp
from llem.projections.derive.energy import baseline_power_w
from llem.projections.derive.experiment import Derived
from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.process import process_status
from llem.projections.tables import Rows
from llem.units import MW_PER_W, NS_PER_S, seconds
from llem_events.events import MeteredDevice, ModelLoaded


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
            "labels": started.labels if started else {},
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
    return next((f"{failed.stage}: {failed.message}" for failed in failures), None)


def processes(derived: Derived) -> Rows:
    """One row per worker."""
    return [_process(derived, process) for process in derived.facts.processes]


def _process(derived: Derived, process: ProcessFacts) -> dict[str, Any]:
    started, model, warmup = process.started, process.model, process.warmup
    meter, sampling = process.meter, process.sampling
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "segment_id": process.segment.segment_id,
        "host": process.host,
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
        _device(derived, process, metered)
        for process in derived.facts.processes
        for metered in process.devices
    ]


def _device(derived: Derived, process: ProcessFacts, metered: MeteredDevice) -> dict[str, Any]:
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
        "meter": process.meter.meter if process.meter else None,
        "energy_source": metered.energy_source,
        "power_kind": metered.power_kind,
        "counter_tick_sec": None if tick_ns is None else tick_ns / NS_PER_S,
        "baseline_power_w": power.mean_power_w if power else None,
        "baseline_std_w": power.std_power_w if power else None,
        "baseline_age_sec": before.age_s if before else None,
        "baseline_after_w": baseline_power_w(process, device.uuid, "after"),
        "missing": metered.missing,
    }
