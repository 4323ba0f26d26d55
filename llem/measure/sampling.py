"""The worker's side of its sampler: edges of windows, with a reason where the sampler cannot answer."""

import time
from typing import TypeVar

from llem.measure.channel import Channel, PeerGoneError
from llem.measure.messages import AnnounceMeter, EdgeRead, ReadEdge
from llem_events.events import BaselinePower, Device, EnergyEdge

T = TypeVar("T")

START_LIMIT_S = 20.0  # a driver that is not loaded takes seconds to come up
EDGE_LIMIT_S = 2.0


class SamplerLink:
    """Asks the sampler for edges; a sampler that is gone or slow costs the worker one wait, never the measurement."""

    def __init__(self, channel: Channel) -> None:
        self._channel: Channel | None = channel
        self.devices: list[Device] = []
        self.temperature_c: float | None = None  # of the hottest device at the last edge
        self.powers: list[BaselinePower] = []  # between the last two edges
        announced = self._ask(AnnounceMeter, START_LIMIT_S)
        if announced is not None:
            self.devices = [metered.device for metered in announced.devices]

    def read_edges(self) -> list[EnergyEdge]:
        """The energy counters of all devices, now."""
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
                for device in self.devices
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
