"""CSV of nvidia-smi: samples, with the very estimate and bound of a run that llem measured without a counter."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llem.errors import LlemError
from llem.importers import nvidia_smi
from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importing import import_result
from llem.results.averaged_power import AveragedReadings
from llem.store import Store
from tests.importing.tables import tables
from tests.simulated_nvml.averaged import CURVES, OPENED_S, readings_of

WINDOW_S, IDLE_S = 10.0, 4.0
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEADER = "timestamp, name, uuid, power.draw [W], power.limit [W], temperature.gpu, utilization.gpu [%], memory.used [MiB]"


def row(at_s: float, power_w: float | str, *, units: bool = True, gpu: int = 0) -> str:
    """A line, as nvidia-smi writes it."""
    moment = datetime.fromtimestamp(BEGAN.timestamp() + at_s, UTC)
    power = power_w if isinstance(power_w, str) else f"{power_w:.2f}"
    cells = [(power, " W"), ("700.00", " W"), ("41", ""), ("97", " %"), ("[N/A]", "")]
    shown = [cell + (unit if units and not cell.startswith("[") else "") for cell, unit in cells]
    at = f"{moment:%Y/%m/%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
    return ", ".join([at, "NVIDIA H100 80GB HBM3", f"GPU-{gpu}", *shown])


def csv_file(folder: Path, rows: Sequence[str], *, header: str = HEADER) -> Path:
    path = folder / "power.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def steady(seconds: float = 20.0, *, units: bool = True) -> list[str]:
    """The mean of the last second, ten times a second, of a load of 300 W from 5 to 15 s between 70 W of idle."""
    times = np.arange(0, seconds, 0.1)
    busy_s = np.clip(times, 5, 15) - np.clip(times - 1, 5, 15)
    return [
        row(at, 70 + 230 * busy, units=units)
        for at, busy in zip(times.tolist(), busy_s.tolist(), strict=True)
    ]


def values(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a statement."""
    with tables(store) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").create()


def imported(store: Store, path: Path, **asked: str) -> Store:
    import_result(path, store, asked=Asked(timezone="UTC", **asked))
    return store


@pytest.mark.parametrize("refresh_ms", [100, 250])
def test_the_estimate_and_bound_are_those_of_a_measured_run(
    store: Store, tmp_path: Path, refresh_ms: int
) -> None:
    """The readings of a simulated driver, telescoped as of a run and as of its CSV, whose times are whole milliseconds."""
    at_sec, power_w, true_j = readings_of(
        CURVES["square"], refresh_ms=refresh_ms, window_s=WINDOW_S, phase_s=0.013, after_s=IDLE_S
    )
    measured = AveragedReadings()
    measured.add(at_sec, power_w)
    run = measured.telescoped(duration_sec=WINDOW_S, averaged_sec=1.0, guard_sec=IDLE_S, power_limit_w=700.0)
    assert run is not None and run.uncertainty_j is not None
    rows = [row(OPENED_S + at, power) for at, power in zip(at_sec.tolist(), power_w.tolist(), strict=True)]
    start_s = -float(at_sec[0])
    opened = imported(store, csv_file(tmp_path, rows), window=f"{start_s},{start_s + WINDOW_S}")
    ((energy_j, bound_j, method),) = values(
        opened, "SELECT energy_j, energy_uncertainty_j, integration FROM windows WHERE kind = 'measurement'"
    )
    assert method == "telescoped"
    assert energy_j == pytest.approx(run.energy_j, rel=1e-3)
    assert bound_j == pytest.approx(run.uncertainty_j, rel=0.05)
    assert abs(energy_j - true_j) <= bound_j


@pytest.mark.parametrize("units", [True, False])
def test_a_log_becomes_samples_windows_and_a_baseline(store: Store, tmp_path: Path, units: bool) -> None:
    """With units and without; what nvidia-smi does not know is NULL and not 0."""
    opened = imported(store, csv_file(tmp_path, steady(units=units)), window="5,15")
    assert values(
        opened,
        "SELECT count(*), any_value(meter), max(power_w), max(memory_used_bytes), max(gpu_utilisation_pct) FROM samples",
    ) == [(200, "imported:nvidia-smi", 300.0, None, 97)]
    ((total, adjusted, baseline, meter, engine, status),) = values(
        opened,
        "SELECT total_energy_j, energy_adjusted_j, baseline_power_w, meter, engine, status FROM experiment_results",
    )
    assert total == pytest.approx(3000, rel=0.02) and adjusted == pytest.approx(2300, rel=0.03)
    assert (baseline, meter, engine, status) == (
        70.0,
        "imported:nvidia-smi",
        "imported:nvidia-smi",
        "completed",
    )
    kinds = values(opened, "SELECT kind, duration_sec FROM windows ORDER BY opened_ns")
    assert [kind for kind, _ in kinds] == ["baseline", "measurement", "guard", "baseline"]
    codes = {code for (code,) in values(opened, "SELECT code FROM warnings")}
    assert codes == {"imported", "aggregation"}
    assert values(opened, "SELECT valid, invalid_reasons FROM experiment_results") == [(True, [])]


def test_without_idle_the_trapezoid_stands(store: Store, tmp_path: Path) -> None:
    """The whole file is the window unless one is named."""
    opened = imported(store, csv_file(tmp_path, [row(at / 10, 300.0) for at in range(120)]))
    assert values(opened, "SELECT integration, energy_j, duration_sec FROM windows") == [
        ("trapezoid", pytest.approx(3570), 11.9)
    ]
    assert values(opened, "SELECT energy_adjusted_j FROM experiment_results") == [(None,)]


def test_a_load_that_goes_on_is_no_idle(store: Store, tmp_path: Path) -> None:
    """The power after the window has to be one, and less than within."""
    rows = [row(at / 10, 70.0 if at < 50 else 300.0 + at % 2) for at in range(200)]
    opened = imported(store, csv_file(tmp_path, rows), window="5,15")
    assert [kind for (kind,) in values(opened, "SELECT kind FROM windows ORDER BY opened_ns")] == [
        "baseline",
        "measurement",
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "average"),
        ("NVIDIA A100-SXM4-80GB", "instant"),
        ("Tesla T4", "instant"),
        ("NVIDIA A10G", "average"),
        ("NVIDIA GeForce RTX 4090", "average"),
        ("NVIDIA GeForce RTX 2080 Ti", "instant"),
        ("NVIDIA RTX 6000 Ada Generation", "average"),
        ("Quadro RTX 6000", "instant"),
        ("NVIDIA Thing", None),
    ],
)
def test_whether_power_is_averaged_follows_from_the_gpu(name: str, kind: str | None) -> None:
    """As documented by the driver; of an unknown GPU nothing is telescoped."""
    rows = [HEADER, *(line.replace("NVIDIA H100 80GB HBM3", name) for line in steady())]
    document = Document("\n".join(rows).encode(), what="power.csv")
    (run,) = nvidia_smi.recordings(document, Asked(timezone="UTC", window="5,15"))
    assert [metered.power_kind for metered in run.devices] == [kind]


def test_two_gpus_are_two_devices(store: Store, tmp_path: Path) -> None:
    """By their UUIDs, and the total is their sum."""
    rows = [row(at / 10, 100.0 * (gpu + 1), gpu=gpu) for at in range(110) for gpu in (0, 1)]
    opened = imported(store, csv_file(tmp_path, rows))
    assert values(opened, "SELECT total_energy_j FROM experiment_results") == [(pytest.approx(3270),)]


def test_local_times_are_taken_as_told(store: Store, tmp_path: Path) -> None:
    """In the zone that is named, and the file says so afterwards."""
    import_result(csv_file(tmp_path, steady()), store, asked=Asked(timezone="+09:00"))
    opened = store
    assert values(opened, "SELECT start_time::VARCHAR FROM experiment_results") == [("2026-03-01 03:00:00",)]
    texts = [text for (text,) in values(opened, "SELECT text FROM warnings")]
    assert any("+09:00" in text for text in texts)


def wrong() -> Iterator[tuple[str, list[str], str, dict[str, str]]]:
    """Header, rows, what is said, options."""
    plain = steady(2.0)
    yield HEADER, [], "no samples", {}
    yield HEADER.replace("timestamp", "time"), plain, "no times", {}
    yield HEADER, [plain[0].replace("2026/03/01", "yesterday")], "timestamp cannot be read", {}
    yield HEADER, [plain[0].replace("70.00 W", "70.00 kW")], "expected a number W", {}
    yield HEADER, plain[::-1], "go back", {}
    yield HEADER, plain, "not within its samples", {"window": "1,5"}
    yield HEADER, plain, "an end after its start", {"window": "1,1"}
    yield HEADER, plain, "START,END", {"window": "1"}
    yield HEADER, plain, "seconds, or a time", {"window": "1,soon"}
    yield HEADER, plain, "--timezone", {"timezone": "Nowhere/Land"}
    yield HEADER, plain, "--start", {"start": "2026-03-01"}


@pytest.mark.parametrize(("header", "rows", "said", "asked"), list(wrong()))
def test_what_cannot_be_right_is_refused(
    store: Store, tmp_path: Path, header: str, rows: list[str], said: str, asked: dict[str, str]
) -> None:
    """In one line, and the store stays empty."""
    path = csv_file(tmp_path, rows, header=header)
    with pytest.raises(LlemError, match=said):
        import_result(path, store, asked=Asked(**{"timezone": "UTC"} | asked))
    assert store.experiment_ids() == []


def test_nothing_measured_is_null(store: Store, tmp_path: Path) -> None:
    """A column of [N/A] is a device without power, with a reason."""
    rows = [row(at / 10, "[N/A]") for at in range(120)]
    opened = imported(store, csv_file(tmp_path, rows))
    assert values(opened, "SELECT total_energy_j FROM experiment_results") == [(None,)]
    assert values(opened, "SELECT reason FROM windows") == [("nvidia-smi does not print the energy counter",)]
