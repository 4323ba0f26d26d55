"""The NVML meter: NVIDIA GPUs by UUID, energy counter first, power samples always."""

from collections.abc import Sequence
from typing import ClassVar

from llem.errors import LlemError
from llem.meters.base import Meter
from llem.meters.clock import SYSTEM_CLOCK, Clock
from llem.meters.counter import measure_ticks, read_edges
from llem.meters.nvml_driver import close_driver, open_driver
from llem.meters.nvml_gpus import resolve_gpus
from llem.meters.nvml_reader import GpuReader
from llem.plan import MeterPlan
from llem.units import NS_PER_S
from llem_events.events import Device, EnergyEdge, MeteredDevice, Reading

REOPEN_AFTER_NS = NS_PER_S


class NvmlMeter:
    """Reads every device in turn; a lost GPU or a restarted driver gives readings of None, not exceptions."""

    NAME: ClassVar[str] = "nvml"

    def __init__(self, devices: Sequence[Device], *, clock: Clock = SYSTEM_CLOCK) -> None:
        open_driver()
        self._open = True
        self._clock = clock
        self._reopen_at_ns = 0
        try:
            self._readers = [
                GpuReader(device, clock=clock) for device in {one.uuid: one for one in devices}.values()
            ]
        except LlemError:
            self.close()
            raise
        counted = [reader for reader in self._readers if reader.has_counter]
        ticks = measure_ticks([reader.energy_mj for reader in counted], clock=clock)
        for reader, tick in zip(counted, ticks, strict=True):
            reader.trust(tick)

    def devices(self) -> Sequence[MeteredDevice]:
        """What is measured; a MIG instance carries its parent's UUID, whose power and energy its figures are."""
        return [reader.metered() for reader in self._readers]

    def read(self) -> Sequence[Reading]:
        """One reading per device."""
        self._reopen_if_due()
        return [reader.read() for reader in self._readers]

    def _reopen_if_due(self) -> None:
        closed = [reader for reader in self._readers if reader.closed]
        if not closed or not self._open or self._clock.now_ns() < self._reopen_at_ns:
            return
        self._reopen_at_ns = self._clock.now_ns() + REOPEN_AFTER_NS
        try:
            open_driver()
        except LlemError:
            return
        for reader in self._readers:
            reader.reopen()

    def read_edge(self) -> list[EnergyEdge]:
        """Every counter just after its next tick; devices without a counter say why."""
        counters = [reader.counter for reader in self._readers if reader.counter]
        edges = {edge.device_uuid: edge for edge in read_edges(counters, clock=self._clock)}
        return [edges.get(reader.device.uuid) or self._no_edge(reader) for reader in self._readers]

    def _no_edge(self, reader: GpuReader) -> EnergyEdge:
        reason = reader.missing.get("energy_mj", "no energy counter")
        return EnergyEdge(device_uuid=reader.device.uuid, at_ns=self._clock.now_ns(), reason=reason)

    def faults(self) -> list[tuple[str, str, str]]:
        """(device UUID, code, text), each told once."""
        return [
            (reader.device.uuid, code, text) for reader in self._readers for code, text in reader.faults()
        ]

    def close(self) -> None:
        """Give NVML back."""
        if self._open:
            self._open = False
            close_driver()


def open_meter(plan: MeterPlan, *, gpus: Sequence[str] | None, pid: int | None) -> Meter:
    """The GPUs meant by `gpus`, all visible ones for None."""
    return NvmlMeter(resolve_gpus(gpus))


def unavailable(*, gpus: Sequence[str] | None) -> str | None:
    """Why no GPU can be read here."""
    if gpus is not None and not gpus:
        return "no GPU is used"
    try:
        resolve_gpus(gpus)
    except LlemError as error:
        return str(error)
    return None
