"""Energies that a file tells as sums over a window, as readings of a counter at its edges."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from llem.importers.recording import Measurement, Span
from llem.units import MJ_PER_J
from llem_events.events import Device, EnergyEdge, MeteredDevice

_NO_SAMPLES = "the file has sums only"


class Sum(NamedTuple):
    """Joules of a device, or why there are none."""

    uuid: str
    kind: str
    energy_j: float | None
    reason: str | None = None
    name: str = "unknown"
    source: Literal["counter", "estimated"] = "counter"

    def metered(self, index: int) -> MeteredDevice:
        """The device, which has no samples."""
        return MeteredDevice(
            device=Device(host="unknown", uuid=self.uuid, index=index, name=self.name, kind=self.kind),
            energy_source=self.source,
            missing={"power_mw": _NO_SAMPLES} | ({} if self.reason is None else {"energy_mj": self.reason}),
        )

    def edge(self, at_ns: int, *, energy_j: float) -> EnergyEdge:
        """A reading, or why there is none."""
        if self.energy_j is None:
            return EnergyEdge(device_uuid=self.uuid, at_ns=at_ns, reason=self.reason)
        return EnergyEdge(device_uuid=self.uuid, at_ns=at_ns, energy_mj=round(energy_j * MJ_PER_J))


def metered(sums: Sequence[Sum]) -> list[MeteredDevice]:
    """Their devices."""
    return [each.metered(index) for index, each in enumerate(sums)]


def measurement(span: Span, sums: Sequence[Sum]) -> Measurement:
    """A window over which each counted from 0."""
    return Measurement(
        span,
        [each.edge(span[0], energy_j=0.0) for each in sums],
        [each.edge(span[1], energy_j=each.energy_j or 0.0) for each in sums],
    )
