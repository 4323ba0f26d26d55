"""The idle baseline: measured in a window of its own, or taken from an earlier experiment with its age."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from llem.errors import MeasureError
from llem.measure.messages import KnownBaseline
from llem.measure.windows import SamplerLink, Windows
from llem.plan import WindowsPlan
from llem.store import Store
from llem.units import NS_PER_S
from llem_events import SegmentReader, boot_id, unpack
from llem_events.events import BaselineMeasured, Device

_MEASURE_ONE = "measure a new one: leave out --baseline-from"


def measure(
    position: Literal["before", "after", "server_idle"],
    duration_s: float,
    *,
    windows: Windows,
    sampler: SamplerLink,
    sleep: Callable[[float], None],
) -> BaselineMeasured:
    """The power of idle devices over `duration_s`."""
    with windows.open("baseline"):
        sleep(duration_s)
    return BaselineMeasured(position=position, duration_s=duration_s, devices=sampler.powers)


def known_baselines(store: Store, plan: WindowsPlan) -> list[KnownBaseline]:
    """What the experiment that the plan names knows of its devices' idle power; nothing where it names none.

    Raises StoreError where there is no such experiment, MeasureError where it has no baseline of this host since it was
    booted, or only one that is too old.
    """
    if plan.baseline_from is None:
        return []
    run = store.resolve(plan.baseline_from)
    if (problem := store.unreadable(run)) is not None:
        raise problem
    baselines = [known for path in store.segments(run) for known in _in_segment(path, run)]
    if not baselines:
        raise MeasureError(
            f"baseline of {run}",
            found="none of this host since it was booted",
            expected="an experiment that measured its idle power here",
            hint=_MEASURE_ONE,
        )
    oldest_s = max(_age_s(known) for known in baselines)
    if oldest_s > plan.baseline_max_age_s:
        raise MeasureError(
            f"baseline of {run}",
            found=f"{oldest_s:.0f} s old",
            expected=f"at most windows.baseline_max_age_s, {plan.baseline_max_age_s:g} s",
            hint=_MEASURE_ONE,
        )
    return baselines


def reuse(known: Sequence[KnownBaseline], devices: Sequence[Device]) -> BaselineMeasured:
    """The baseline before loading of these devices. Raises MeasureError for a device that it does not cover."""
    by_device = {baseline.power.device_uuid: baseline for baseline in known}
    unknown = [device.uuid for device in devices if device.uuid not in by_device]
    if unknown or not devices:
        raise MeasureError(
            f"baseline of {known[0].experiment_id}",
            found=f"devices {', '.join(by_device)}",
            expected=", ".join(unknown) or "a meter that has devices",
            hint=_MEASURE_ONE,
        )
    taken = [by_device[device.uuid] for device in devices]
    oldest = max(taken, key=_age_s)
    return BaselineMeasured(
        position="before",
        duration_s=oldest.duration_s,
        devices=[baseline.power for baseline in taken],
        age_s=_age_s(oldest),
        reused_from=oldest.experiment_id,
    )


def _in_segment(path: Path, run: str) -> Iterator[KnownBaseline]:
    """The baseline before loading in a worker's segment; one that was reused itself keeps its age and its origin."""
    with SegmentReader(path) as reader:
        header = reader.header
        if header is None or header.role != "worker":
            return
        if (header.host, header.boot_id) != (platform.node(), boot_id()):
            return
        for envelope in (envelope for block in reader.blocks() for envelope in reader.events(block)):
            event = unpack(envelope)
            if isinstance(event, BaselineMeasured) and event.position == "before":
                for power in event.devices:
                    if power.mean_power_w is not None:
                        yield KnownBaseline(
                            experiment_id=event.reused_from or run,
                            measured_ns=envelope.at_ns - round(event.age_s * NS_PER_S),
                            duration_s=event.duration_s,
                            power=power,
                        )
                return


def _age_s(known: KnownBaseline) -> float:
    return (time.monotonic_ns() - known.measured_ns) / NS_PER_S
