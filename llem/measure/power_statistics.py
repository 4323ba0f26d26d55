"""Mean and spread of the power between two edges, without keeping the samples."""

import math
from collections.abc import Sequence

from llem.units import MW_PER_W
from llem_events import Reading
from llem_events.events import BaselinePower


class PowerStatistics:
    """Running mean and sum of squares of one device's power (Welford 1962)."""

    def __init__(self) -> None:
        self._samples = 0
        self._mean_w = self._squares = 0.0

    def add(self, reading: Reading) -> None:
        """Count one reading; one without power is left out."""
        if reading.power_mw is None:
            return
        power_w = reading.power_mw / MW_PER_W
        self._samples += 1
        delta = power_w - self._mean_w
        self._mean_w += delta / self._samples
        self._squares += delta * (power_w - self._mean_w)

    def result(self, device_uuid: str) -> BaselinePower:
        """What was seen; None with a reason where no power was read."""
        if self._samples == 0:
            return BaselinePower(
                device_uuid=device_uuid,
                mean_power_w=None,
                std_power_w=None,
                samples=0,
                reason="no power was read",
            )
        spread_w = math.sqrt(self._squares / (self._samples - 1)) if self._samples > 1 else None
        return BaselinePower(
            device_uuid=device_uuid, mean_power_w=self._mean_w, std_power_w=spread_w, samples=self._samples
        )


def results(statistics: Sequence[PowerStatistics], device_uuids: Sequence[str]) -> list[BaselinePower]:
    """One result per device, in order."""
    return [each.result(uuid) for each, uuid in zip(statistics, device_uuids, strict=True)]
