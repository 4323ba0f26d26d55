"""CSV of nvidia-smi: samples, with the very estimate and bound of a run that llem measured without a counter."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pytest

from llem.errors import LlemError
from llem.importers import nvidia_smi
from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Recording
from llem.importing import import_result, understand
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


def recorded(rows: Sequence[str], **asked: str) -> Recording:
    """What a log becomes, without a store."""
    document = Document("\n".join([HEADER, *rows]).encode(), what="power.csv")
    (run,) = nvidia_smi.recordings(document, Asked(**{"timezone": "UTC"} | asked))
    return run


class Readings(NamedTuple):
    """Those of a simulated driver, and what they telescope to."""

    rows: list[str]
    window: str
    energy_j: float
    bound_j: float
    true_j: float


def measured(refresh_ms: int) -> Readings:
    """Ten seconds of a square wave, which ends with them."""
    at_sec, power_w, true_j = readings_of(
        CURVES["square"], refresh_ms=refresh_ms, window_s=WINDOW_S, phase_s=0.013, after_s=IDLE_S
    )
    readings = AveragedReadings()
    readings.add(at_sec, power_w)
    run = readings.telescoped(duration_sec=WINDOW_S, averaged_sec=1.0, guard_sec=IDLE_S, power_limit_w=700.0)
    assert run is not None and run.uncertainty_j is not None
    rows = [row(OPENED_S + at, power) for at, power in zip(at_sec.tolist(), power_w.tolist(), strict=True)]
    start_s = -float(at_sec[0])
    window = f"{start_s},{start_s + WINDOW_S}"
    return Readings(rows, window, run.energy_j, run.uncertainty_j, true_j)


class Imported(NamedTuple):
    """A store with several logs."""

    connection: duckdb.DuckDBPyConnection
    ids: dict[str, str]
    measured: dict[int, Readings]

    def values(self, log: str, columns: str, table: str) -> list[tuple[Any, ...]]:
        """Rows of a table that are of one log, in the order of time where they have any."""
        order = " ORDER BY opened_ns" if table == "windows" else ""
        statement = f"SELECT {columns} FROM {table} WHERE experiment_id = $1{order}"
        return self.connection.execute(statement, [self.ids[log]]).fetchall()


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    """Each under its name."""
    folder = tmp_path_factory.mktemp("logs")
    store = Store(folder / "store").create()
    of_driver = {refresh_ms: measured(refresh_ms) for refresh_ms in (100, 250)}
    logs = {
        "units": (steady(), "5,15"),
        "nounits": (steady(units=False), "5,15"),
        "busy": ([row(at / 10, 300.0) for at in range(120)], None),
        "nothing": ([row(at / 10, "[N/A]") for at in range(120)], None),
        "two": ([row(at / 10, 100.0 * (gpu + 1), gpu=gpu) for at in range(110) for gpu in (0, 1)], None),
        **{str(refresh_ms): (each.rows, each.window) for refresh_ms, each in of_driver.items()},
    }
    ids = {}
    for name, (rows, window) in logs.items():
        asked = Asked(timezone="UTC", window=window)
        (ids[name],) = import_result(csv_file(folder, rows), store, asked=asked).experiment_ids
    with tables(store) as connection:
        yield Imported(connection, ids, of_driver)


@pytest.mark.parametrize("refresh_ms", [100, 250])
def test_the_estimate_and_bound_are_those_of_a_measured_run(imported: Imported, refresh_ms: int) -> None:
    """The readings of a simulated driver, telescoped as of a run and as of its CSV, whose times are whole milliseconds."""
    run = imported.measured[refresh_ms]
    columns = "kind, energy_j, energy_uncertainty_j, integration"
    (window,) = (
        each for each in imported.values(str(refresh_ms), columns, "windows") if each[0] == "measurement"
    )
    _, energy_j, bound_j, method = window
    assert method == "telescoped"
    assert energy_j == pytest.approx(run.energy_j, rel=1e-3)
    assert bound_j == pytest.approx(run.bound_j, rel=0.05)
    assert abs(energy_j - run.true_j) <= bound_j


@pytest.mark.parametrize("log", ["units", "nounits"])
def test_a_log_becomes_samples_windows_and_a_baseline(imported: Imported, log: str) -> None:
    """With units and without; what nvidia-smi does not know is NULL and not 0."""
    columns = "count(*), any_value(meter), max(power_w), max(memory_used_bytes), max(gpu_utilisation_pct)"
    assert imported.values(log, columns, "samples") == [(200, "imported:nvidia-smi", 300.0, None, 97)]
    columns = "total_energy_j, energy_adjusted_j, baseline_power_w, meter, engine, status, valid"
    ((total, adjusted, *rest),) = imported.values(log, columns, "experiment_results")
    assert total == pytest.approx(3000, rel=0.02) and adjusted == pytest.approx(2300, rel=0.03)
    assert rest == [70.0, "imported:nvidia-smi", "imported:nvidia-smi", "completed", True]
    kinds = [kind for (kind,) in imported.values(log, "kind", "windows")]
    assert kinds == ["baseline", "measurement", "guard", "baseline"]
    assert {code for (code,) in imported.values(log, "code", "warnings")} == {"imported", "aggregation"}


def test_without_idle_the_trapezoid_stands(imported: Imported) -> None:
    """The whole file is the window unless one is named."""
    assert imported.values("busy", "integration, energy_j, duration_sec", "windows") == [
        ("trapezoid", pytest.approx(3570), 11.9)
    ]
    assert imported.values("busy", "energy_adjusted_j", "experiment_results") == [(None,)]


def test_two_gpus_are_two_devices(imported: Imported) -> None:
    """By their UUIDs, and the total is their sum."""
    assert imported.values("two", "total_energy_j", "experiment_results") == [(pytest.approx(3270),)]


def test_nothing_measured_is_null(imported: Imported) -> None:
    """A column of [N/A] is a device without power, with a reason."""
    assert imported.values("nothing", "total_energy_j", "experiment_results") == [(None,)]
    reason = "nvidia-smi does not print the energy counter"
    assert imported.values("nothing", "reason", "windows") == [(reason,)]


def test_a_load_that_goes_on_is_no_idle() -> None:
    """The power after the window has to be one, and less than within."""
    run = recorded([row(at / 10, 70.0 if at < 50 else 300.0 + at % 2) for at in range(200)], window="5,15")
    assert run.idle_before is not None and run.guard is None
    assert any("no idle stands after" in (line.reason or "") for line in run.mapping)


def test_local_times_are_taken_as_told() -> None:
    """In the zone that is named, and a note says so."""
    run = recorded(steady(), timezone="+09:00")
    assert run.began == datetime(2026, 3, 1, 3, tzinfo=UTC)
    assert any("+09:00" in note for note in run.notes)


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
    run = recorded([line.replace("NVIDIA H100 80GB HBM3", name) for line in steady()], window="5,15")
    assert [metered.power_kind for metered in run.devices] == [kind]


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
    tmp_path: Path, header: str, rows: list[str], said: str, asked: dict[str, str]
) -> None:
    """In one line."""
    path = csv_file(tmp_path, rows, header=header)
    with pytest.raises(LlemError, match=said):
        understand(path, asked=Asked(**{"timezone": "UTC"} | asked))
