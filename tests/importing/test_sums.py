"""Formats that tell of sums and windows: what each figure is without what does not belong to it, and why others are NULL."""

from pathlib import Path
from typing import Any

import pytest

from llem.errors import ExportError, LlemError
from llem.importers.asked import Asked
from llem.importers.recording import Recording
from llem.importing import Run, understand
from tests.importing.files import FORMATS, UTC

STARTED = Asked(timezone="UTC", start="2026-03-01T12:00:00")
COLUMNS = "timestamp,project_name,run_id,duration,emissions,cpu_energy,gpu_energy,ram_energy,energy_consumed,gpu_count,gpu_model,pue"


def runs_of(tmp_path: Path, *lines: str, asked: Asked = UTC) -> list[Recording]:
    (path := tmp_path / "file.csv").write_text("\n".join(lines) + "\n")
    return [recorded(run) for run in understand(path, asked=asked).runs]


def recorded(run: Run) -> Recording:
    assert isinstance(run, Recording)
    return run


def emissions(run: str, *, gpu: Any, pue: Any, gpu_model: str = "H100", duration: float = 60.0) -> str:
    return f"2026-03-01T12:01:00,p,{run},{duration},0.1,0.0001,{gpu},0.00001,0.0003,1,{gpu_model},{pue}"


def energies(run: Recording) -> dict[str, tuple[int | None, str | None]]:
    """Millijoules of each device over the first window, and why there are none."""
    opened, closed = run.measurements[0].opened, run.measurements[0].closed
    assert {edge.energy_mj for edge in opened} <= {0, None}
    return {edge.device_uuid: (edge.energy_mj, edge.reason) for edge in closed}


def test_codecarbon_without_its_pue(tmp_path: Path) -> None:
    """The energy is that of the devices: 0.0002295 kWh with a PUE of 1.5 are 0.000153 kWh, 550.8 J; CPU and memory stand beside it."""
    (run,) = runs_of(tmp_path, COLUMNS, emissions("a", gpu=0.0002295, pue=1.5))
    assert energies(run)["GPUs"] == (550_800, None)
    assert [metered.device.uuid for metered in run.devices] == ["GPUs"]
    assert [metered.energy_source for other in run.beside for metered in other.devices] == [
        "estimated",
        "estimated",
    ]
    assert any("PUE of 1.5" in note for note in run.notes)


def test_codecarbons_zero_is_not_measured(tmp_path: Path) -> None:
    """A GPU without energy is NULL with a reason; where no GPU is named there is none."""
    (run,) = runs_of(tmp_path, COLUMNS, emissions("a", gpu="0.0", pue=1.0))
    energy_mj, reason = energies(run)["GPUs"]
    assert energy_mj is None and reason == "CodeCarbon writes 0 where it measured nothing"
    assert any(
        line.column == "energy_gpu_j" and "0: CodeCarbon" in (line.reason or "") for line in run.mapping
    )
    (without,) = runs_of(tmp_path, COLUMNS, emissions("a", gpu="0.0", pue=1.0, gpu_model=""))
    assert {*energies(without)} == {"CPU", "RAM"}


def test_the_last_line_of_a_run_counts(tmp_path: Path) -> None:
    """CodeCarbon appends its sums so far; other runs are other experiments, each with its lines."""
    lines = [emissions("a", gpu=0.1, pue=1), emissions("b", gpu=0.2, pue=1), emissions("a", gpu=0.3, pue=1)]
    first, second = runs_of(tmp_path, COLUMNS, *lines)
    assert energies(first)["GPUs"] == (1_080_000_000, None)
    assert second.original == f"{COLUMNS}\n{lines[1]}\n".encode()


def test_real_runs_of_codecarbon_differ_by_their_pue_alone() -> None:
    """Two runs of four seconds, the second with a PUE of 1.5: what the devices drew is the same but for a hundredth."""
    first, second = (
        energies(recorded(run)) for run in understand(FORMATS / "codecarbon/emissions.csv", asked=UTC).runs
    )
    assert second["RAM"][0] == pytest.approx(first["RAM"][0], rel=0.02)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2026-03-01T12:01:00,p,a", "line 2"),
        (emissions("a", gpu=-1, pue=1), "gpu_energy"),
        (emissions("a", gpu=1, pue=0), "pue"),
        (emissions("a", gpu=1, pue=1, duration=0), "duration"),
        (emissions("a", gpu=1, pue=1).replace("2026-03-01", "today"), "timestamp"),
    ],
)
def test_a_line_that_cannot_be_right(tmp_path: Path, line: str, said: str) -> None:
    """Is refused, and the error names it."""
    with pytest.raises(ExportError, match=said):
        runs_of(tmp_path, COLUMNS, line)


ZEUS = "start_time,window_name,elapsed_time,gpu0_energy"


def test_windows_of_one_name_are_one_run_of_zeus(tmp_path: Path) -> None:
    """In the order of time; one that is shorter than the counter's tick has no energy."""
    lines = [
        "1772366412.5,epoch,10.0,3000.5",
        "1772366400.0,epoch,10.0,3001.25",
        "1772366401.0,step,0.01,0.0",
    ]
    epoch, step = runs_of(tmp_path, ZEUS, *lines)
    assert [measured.closed[0].energy_mj for measured in epoch.measurements] == [3_001_250, 3_000_500]
    assert step.measurements[0].closed[0].reason == "0 J: the window was shorter than the counter's tick"
    with pytest.raises(ExportError, match="overlap"):
        runs_of(tmp_path, ZEUS, lines[0], "1772366413.5,epoch,10.0,3000.5")


def test_other_columns_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """Two logs of dcgmi in one file are two."""
    (path := tmp_path / "dmon.txt").write_text(
        "#Entity POWER\nGPU 0 70.1\n#Entity POWER TOTEC\nGPU 0 70.1 5\n"
    )
    asked = Asked(timezone="UTC", start="2026-03-01", interval_s=1.0)
    with pytest.raises(ExportError, match="line 3: other columns"):
        understand(path, asked=asked)


@pytest.mark.parametrize("name", ["dcgmi/dmon.txt", "sglang/results.jsonl", "optimum/benchmark_report.json"])
def test_a_file_without_times_needs_them(name: str) -> None:
    """The error says which option."""
    with pytest.raises(LlemError, match="--start"):
        understand(FORMATS / name, asked=UTC)


def test_runs_without_times_follow_each_other() -> None:
    """From --start on, in the order of the file."""
    first, second = (
        recorded(run) for run in understand(FORMATS / "sglang/results.jsonl", asked=STARTED).runs
    )
    assert second.origin_ns - first.origin_ns == 12_500_000_000


def test_the_testing_phase_is_the_window_of_a_power_log() -> None:
    """As PTDaemon marks it; the idle before it is the baseline."""
    (run,) = understand(FORMATS / "mlperf/spl.txt", asked=UTC).runs
    run = recorded(run)
    assert run.measurements[0].span == (23_000_000_000, 41_000_000_000)
    assert [metered.device.kind for metered in run.devices] == ["wall"]


def test_an_option_that_says_nothing_to_a_file_is_refused() -> None:
    """Zeus tells its times itself."""
    with pytest.raises(ExportError, match="--start says nothing to a file of zeus"):
        understand(FORMATS / "zeus/energy.csv", asked=STARTED)


def test_a_named_format_has_to_fit() -> None:
    """The content decides."""
    with pytest.raises(ExportError, match=r"another format: found '.*', expected dcgmi"):
        understand(FORMATS / "zeus/energy.csv", file_format="dcgmi", asked=UTC)
