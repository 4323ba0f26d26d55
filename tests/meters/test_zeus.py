"""What the zeus meter makes of boards and chips, on zeus's own types."""

import pytest

soc_common = pytest.importorskip("zeus.device.soc.common", reason="the zeus extra is not installed")

from zeus.device.soc.apple import AppleSiliconMeasurement  # noqa: E402 -- only where zeus is installed
from zeus.device.soc.jetson import JetsonMeasurement  # noqa: E402 -- only where zeus is installed

from llem.meters.zeus import ZeusMeter, soc_sensor  # noqa: E402 -- only where zeus is installed
from tests.meters.conftest import ManualClock  # noqa: E402 -- only where zeus is installed


class Chip(soc_common.EmptySoC):  # type: ignore[misc, name-defined] # zeus is untyped where it is not installed
    """A chip whose energy grows by 5 mJ a millisecond of manual time."""

    def __init__(self, parts: dict[str, float], clock: ManualClock) -> None:
        self._parts, self._clock = parts, clock

    def get_available_metrics(self) -> set[str]:
        return set(self._parts)

    def get_total_energy_consumption(self) -> object:
        grown = {name: share * (self._clock.at_ns // 1_000_000) for name, share in self._parts.items()}
        kind = JetsonMeasurement if "total_energy_mj" in grown else AppleSiliconMeasurement
        return kind(**grown)


@pytest.mark.parametrize(
    ("parts", "source"),
    [
        ({"cpu_energy_mj": 1.0, "gpu_energy_mj": 2.0, "total_energy_mj": 5.0}, "integrated"),
        ({"cpu_total_mj": 1, "gpu_mj": 2, "dram_mj": 1, "ane_mj": 1}, "counter"),
    ],
)
def test_a_chip_is_counted_once(manual_clock: ManualClock, parts: dict[str, float], source: str) -> None:
    """A board's total is taken alone; a chip's parts that do not overlap are summed: 5 W in both cases."""
    meter = ZeusMeter([soc_sensor(Chip(parts, manual_clock))], clock=manual_clock.clock)
    (opened,) = meter.read_edge()
    manual_clock.sleep_s(10.0)
    (closed,) = meter.read_edge()
    assert opened.energy_mj is not None and closed.energy_mj is not None
    assert (closed.energy_mj - opened.energy_mj) / 1000 == pytest.approx(50.0, rel=0.001)
    (metered,) = meter.devices()
    assert metered.energy_source == source
    assert metered.missing["power_mw"] == "zeus gives a chip's energy only"
