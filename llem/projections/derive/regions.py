"""Energy of the regions that a wrapped program named, from the samples of its measurement."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llem.projections.derive.clocks import timestamp
from llem.projections.derive.energy import trace
from llem.projections.derive.experiment import Derived
from llem.projections.derive.process import Measured
from llem.projections.derive.samples import DeviceSamples, load_samples
from llem.projections.derive.source import Source
from llem.results.nullable import ratio
from llem.results.phases import phase_energies
from llem.results.power import FloatArray
from llem.units import NS_PER_S
from llem_events.events import MeteredDevice, Region

KIND = "region"
SILENT_SHARE = 0.05  # of a region that lasts for an hour: one late sample in it takes nothing away


def region_rows(source: Source, derived: Derived) -> Iterator[dict[str, Any]]:
    """One row per region and device, or per region where there is none."""
    for measured in derived.measured:
        regions = measured.process.regions
        if not regions:
            continue
        ends_ns = [_end_ns(region, measured) for region in regions]
        named = [_named(derived, measured, region, end) for region, end in zip(regions, ends_ns, strict=True)]
        for _, metered in measured.process.every_device:
            samples = load_samples(source, measured.process, metered.device.uuid, measured.spans[0])
            energies = _energies(metered, samples, regions, ends_ns)
            for row, energy in zip(named, energies, strict=True):
                yield row | energy
        if not measured.process.every_device:
            yield from named


def _end_ns(region: Region, measured: Measured) -> int:
    """When it ended; one that never did lasted as long as the program, as far as that is known."""
    ended_ns = measured.spans[-1][1] if region.ended_ns is None else region.ended_ns
    return max(ended_ns, region.began_ns)


def _named(derived: Derived, measured: Measured, region: Region, end_ns: int) -> dict[str, Any]:
    segment = measured.process.segment
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": measured.process.process_index,
        "kind": KIND,
        "window_index": region.index,
        "opened_ns": region.began_ns,
        "closed_ns": end_ns,
        "closed": region.ended_ns is not None,
        "start_time": timestamp(derived.clocks.wall_ns(segment, region.began_ns)),
        "end_time": timestamp(derived.clocks.wall_ns(segment, end_ns)),
        "duration_sec": (end_ns - region.began_ns) / NS_PER_S,
        "name": region.name,
        "parent_index": region.parent_index,
        "program_process": region.process,
        "tokens": region.tokens,
        "requests": region.requests,
    }


def _energies(
    metered: MeteredDevice, samples: DeviceSamples, regions: Sequence[Region], ends_ns: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Of one device in every region."""
    origin_ns = samples.span[0]
    starts_sec = (np.array([region.began_ns for region in regions]) - origin_ns) / NS_PER_S
    ends_sec = (np.array(ends_ns) - origin_ns) / NS_PER_S
    phases = phase_energies(
        trace(metered, samples), starts_sec=starts_sec, ends_sec=ends_sec, silent_share=SILENT_SHARE
    )
    counts = _counts(samples, starts_sec, ends_sec)
    lengths = (ends_sec - starts_sec).tolist()
    for phase, count, duration_sec in zip(phases, counts, lengths, strict=True):
        yield {
            "device_uuid": metered.device.uuid,
            "energy_j": phase.energy_j,
            "energy_source": phase.source,
            "mean_power_w": ratio(phase.energy_j, duration_sec),
            "samples": count,
            "reason": phase.reason,
        }


def _counts(samples: DeviceSamples, starts_sec: FloatArray, ends_sec: FloatArray) -> list[int]:
    """How many samples lie in each region."""
    counts = np.zeros(len(starts_sec), np.int64)
    for at_sec, _, left_out in samples.series(np.concatenate((starts_sec, ends_sec))):
        each = np.ones(len(at_sec), np.int64) if left_out is None else 1 + left_out.samples
        passed = np.concatenate(([0], np.cumsum(each)))
        counts += passed[np.searchsorted(at_sec, ends_sec, side="right")]
        counts -= passed[np.searchsorted(at_sec, starts_sec)]
    counted: list[int] = counts.tolist()
    return counted
