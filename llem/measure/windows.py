"""Windows: spans of the host's monotonic clock between two readings of the energy counters, which the worker asks its sampler for."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from llem.measure.messages import AnnounceMeter, Channel, EdgeRead, PeerGoneError, ReadEdge
from llem.units import seconds
from llem_events import BackgroundWriter
from llem_events.events import (
    BaselinePower,
    Device,
    EnergyEdge,
    MeteredDevice,
    OtherMeter,
    SensorCalibrated,
    WindowClosed,
    WindowOpened,
)

T = TypeVar("T")

START_LIMIT_S = 20.0  # a driver that is not loaded takes seconds to come up
EDGE_LIMIT_S = 2.0
GUARD_REFRESHES_S = 0.6  # two refreshes of the slowest sensor that is known, and a little more
WindowKind = Literal["baseline", "warmup", "measurement", "drain", "guard"]


class SamplerLink:
    """Asks the sampler for edges; a sampler that is gone or slow costs the worker one wait, never the measurement."""

    def __init__(self, channel: Channel) -> None:
        self._channel: Channel | None = channel
        self.devices: list[Device] = []
        self.beside: list[Device] = []  # of the other meters
        self.gpu_meter: str | None = None  # the one that reads GPUs, if any does
        self.gpus: list[Device] = []
        self.temperature_c: float | None = None  # of the hottest device at the last edge
        self.powers: list[BaselinePower] = []  # between the last two edges
        self.averaged_s = 0.0  # over which a device without an energy counter averages its power
        announced = self._ask(AnnounceMeter, START_LIMIT_S)
        if announced is not None:
            self._note(announced)

    def _note(self, announced: AnnounceMeter) -> None:
        first = OtherMeter(meter=announced.meter, devices=announced.devices)
        for each in (first, *announced.beside):
            devices = [metered.device for metered in each.devices]
            (self.devices if each is first else self.beside).extend(devices)
            self.averaged_s = max(self.averaged_s, *map(averages_over_s, each.devices), 0.0)
            if gpus := [device for device in devices if device.kind in ("gpu", "mig")]:
                self.gpu_meter, self.gpus = each.meter, gpus

    def rely_on(self, calibrated: SensorCalibrated) -> None:
        """An average may reach further back than is documented."""
        window_s, delay_s = calibrated.averaging_window_s.value, calibrated.delay_s.value
        if self.averaged_s and window_s is not None:
            self.averaged_s = max(self.averaged_s, window_s + max(delay_s or 0.0, 0.0))

    def read_edges(self) -> list[EnergyEdge]:
        """The energy counters of all devices of all meters, now."""
        if self._channel is not None:
            try:
                self._channel.send(ReadEdge())
            except PeerGoneError:
                self._channel = None
        answer = self._ask(EdgeRead, EDGE_LIMIT_S)
        if answer is None:
            now_ns = time.monotonic_ns()
            return [
                EnergyEdge(device_uuid=device.uuid, at_ns=now_ns, reason="the sampler did not answer")
                for device in [*self.devices, *self.beside]
            ]
        self.temperature_c = answer.temperature_c
        self.powers = answer.powers
        return answer.edges

    def _ask(self, kind: type[T], timeout_s: float) -> T | None:
        if self._channel is None:
            return None
        try:
            answer = self._channel.receive(timeout_s=timeout_s)
        except PeerGoneError:
            answer = None
        if isinstance(answer, kind):
            return answer
        self._channel = None  # late answers would be taken for those of later edges
        return None


class Windows:
    """Opens and closes windows in the log of one worker; a window's edge is the moment its counters were read."""

    def __init__(self, log: BackgroundWriter, sampler: SamplerLink) -> None:
        self._log, self._sampler = log, sampler
        self._counts: Counter[WindowKind] = Counter()

    @contextmanager
    def open(self, kind: WindowKind) -> Iterator[int]:
        """A window around the body, closed however the body ends; yields when it was opened."""
        index = self._counts[kind]
        self._counts[kind] += 1
        edges = self._sampler.read_edges()
        opened_ns = _latest(edges)
        self._log.append(WindowOpened(kind=kind, window_index=index, edges=edges), at_ns=opened_ns)
        # Whatever kills this process next, what was sampled in the window can be told from what was not.
        self._log.hurry()
        try:
            yield opened_ns
        finally:
            edges = self._sampler.read_edges()
            self._log.append(WindowClosed(kind=kind, window_index=index, edges=edges), at_ns=_earliest(edges))

    def guard(self, duration_s: float, *, sleep: Callable[[float], None]) -> None:
        """A window in which nothing is done, so that what sensors averaged over the measurement can be told from what came after it."""
        if duration_s > 0:
            with self.open("guard"):
                sleep(duration_s)


def guard_s(planned_s: float | None, averaged_s: float) -> float:
    """How long nothing should be done after the measurement: where averages are all that is known, until they hold none of it."""
    if planned_s is not None:
        return planned_s
    return averaged_s + GUARD_REFRESHES_S if averaged_s else 0.0


def averages_over_s(metered: MeteredDevice) -> float:
    """Over how long the power of a device is averaged that has no energy counter; 0 for any other."""
    has_counter = metered.counter_tick_ns is not None or "energy_mj" not in metered.missing
    return 0.0 if has_counter else seconds(metered.power_window_ns or 0)


def _latest(edges: Sequence[EnergyEdge]) -> int:
    return max((edge.at_ns for edge in edges), default=time.monotonic_ns())


def _earliest(edges: Sequence[EnergyEdge]) -> int:
    return min((edge.at_ns for edge in edges), default=time.monotonic_ns())
