"""Several meters in one run: each kind of device has its energy, and the total stays that of the first meter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CALM, QUICK, SIMULATED, Run, events_of
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import GpuHost, gpus
from tests.measure.powercap import DRAM_W, PACKAGE_W, TickingPowercap

KINDS = ("energy_gpu_j", "energy_cpu_j", "energy_dram_j")
# of energies over a second or two, read at a counter's ticks on a busy machine
CLOSE = 0.08
TOGETHER = (*SIMULATED, *QUICK, "--meter", "simulated,rapl")


@pytest.fixture
def powercap(tmp_path: Path) -> Iterator[str]:
    """The path of a host's counters of one package and its memory."""
    with TickingPowercap(tmp_path / "powercap") as ticking:
        yield str(ticking.root)


def figures(llem: Run) -> dict[str, Any]:
    """The row of the only run."""
    (row,) = json.loads(llem("query", "FROM experiment_results", "-f", "json").stdout)
    return dict(row)


@pytest.mark.slow
@best_of_rounds
def test_gpus_and_the_cpu_are_measured_together(gpu_host: GpuHost, powercap: str) -> None:
    """Two workers with a GPU each: the total is the GPUs' and true; the package, which both saw, and its memory count once."""
    run = gpu_host.measure(gpus(2), *CALM, "--meter", "nvml,rapl", LLEM_POWERCAP=powercap)
    assert run.done.returncode == 0, run.done.stderr
    result = run.result()
    of_gpus = [edges for edges in run.windows() if edges.device_uuid.startswith("GPU")]
    assert result["total_energy_j"] == pytest.approx(sum(map(run.truth_of, of_gpus)), rel=CLOSE)
    assert result["energy_gpu_j"] == result["total_energy_j"]
    with delays():  # of the counters' file, too
        assert result["energy_cpu_j"] == pytest.approx(PACKAGE_W * result["measured_sec"], rel=CLOSE)
        assert result["energy_dram_j"] == pytest.approx(DRAM_W * result["measured_sec"], rel=CLOSE)
    assert result["aggregation"]["gpu_attribution_verified"] is True
    codes = {reason["code"] for reason in result["invalid_reasons"]}
    assert codes <= {"too_short"}


@pytest.mark.slow
@best_of_rounds
def test_every_table_says_which_meter_read_what(llem: Run, powercap: str) -> None:
    """Devices, windows and samples hold those of both meters; idle power is measured for each, and that of the total is the first's."""
    done = llem("measure", *TOGETHER, LLEM_POWERCAP=powercap)
    assert done.returncode == 0, done.stderr
    for table in ("devices", "samples"):
        asked = llem("query", f"SELECT DISTINCT meter, device_uuid FROM {table} ORDER BY ALL", "-f", "csv")
        assert asked.stdout.split() == [
            "meter,device_uuid", "rapl,rapl-package-0", "rapl,rapl-package-0-dram", "simulated,SIM-0",
        ]  # fmt: skip
    idle = llem("query", "SELECT baseline_power_w FROM devices ORDER BY device_uuid", "-f", "json")
    powers = [row["baseline_power_w"] for row in json.loads(idle.stdout)]
    with delays():
        assert powers == pytest.approx([100.0, PACKAGE_W, DRAM_W], rel=CLOSE)
    row = figures(llem)
    assert (row["meter"], row["baseline_power_w"]) == ("simulated", powers[0])
    assert row["energy_adjusted_j"] == pytest.approx(
        row["total_energy_j"] - row["baseline_power_w"] * row["duration_sec"]
    )
    counted = json.loads(
        llem("query", "FROM windows WHERE kind = 'measurement' ORDER BY ALL", "-f", "json").stdout
    )
    assert {(window["energy_source"], window["reason"]) for window in counted} == {
        ("counter", None), ("simulated", None),
    }  # fmt: skip


@pytest.mark.slow
def test_the_parts_are_shown_beside_the_total(llem: Run, powercap: str) -> None:
    """On the screen and in the CSV."""
    llem("measure", *TOGETHER, LLEM_POWERCAP=powercap)
    shown, row = llem("show").stdout, figures(llem)
    for name, source in (("GPUs", "simulated"), ("CPUs", "counter"), ("DRAM", "counter")):
        (line,) = [line for line in shown.splitlines() if line.startswith(f"energy of {name}")]
        assert line.endswith(f"J, {source}")
    header, values = llem("export", "-", "--format", "csv").stdout.splitlines()
    exported = dict(zip(header.split(","), values.split(","), strict=False))
    assert [float(exported[name]) for name in KINDS] == [row[name] for name in KINDS]


@pytest.mark.slow
@best_of_rounds
def test_any_meter_can_be_the_first(llem: Run, powercap: str) -> None:
    """With RAPL first the total is the CPU's and its memory's, and the GPU stands beside it."""
    done = llem("measure", *TOGETHER, "--meter", "rapl,simulated", LLEM_POWERCAP=powercap)
    assert done.returncode == 0, done.stderr
    row = figures(llem)
    assert row["total_energy_j"] == pytest.approx(row["energy_cpu_j"] + row["energy_dram_j"])
    with delays():
        assert row["energy_gpu_j"] == pytest.approx(100.0 * row["measured_sec"], rel=CLOSE)


@pytest.mark.slow
def test_the_gpu_is_described_whichever_meter_is_the_first(gpu_host: GpuHost, powercap: str) -> None:
    """Its name, its memory and its driver stand in the result of `rapl,nvml` too."""
    run = gpu_host.measure(gpus(1), "--meter", "rapl,nvml", LLEM_POWERCAP=powercap)
    assert run.done.returncode == 0, run.done.stderr
    described = "SELECT gpu_name, gpu_memory_mb > 0 AS has_memory, driver_version FROM experiment_results"
    assert run.query(described) == [
        {"gpu_name": "NVIDIA H100 80GB HBM3", "has_memory": True, "driver_version": "570.86.15"}
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meter", "known"),
    [
        ("rapl", {"energy_cpu_j", "energy_dram_j"}),
        ("simulated", {"energy_gpu_j"}),
        ("estimate", {"energy_cpu_j"}),
    ],
)
def test_one_meter_alone_has_its_kinds(llem: Run, powercap: str, meter: str, known: set[str]) -> None:
    """They add up to the total; of what no meter read, nothing is said."""
    done = llem("measure", *SIMULATED, *QUICK, "--meter", meter, LLEM_POWERCAP=powercap)
    assert done.returncode == 0, done.stderr
    row = figures(llem)
    assert {name for name in KINDS if row[name] is not None} == known
    assert sum(row[name] for name in known) == pytest.approx(row["total_energy_j"])


@pytest.mark.slow
@best_of_rounds
def test_a_wrapped_program_has_them_too(llem: Run, powercap: str) -> None:
    """Power is read around any program."""
    options = ("--meter", "simulated,rapl", "--set", "windows.baseline_s=0.2")
    done = llem("measure", *options, "--", "sleep", "0.5", LLEM_POWERCAP=powercap)
    assert done.returncode == 0, done.stderr
    row = figures(llem)
    with delays():
        assert row["energy_cpu_j"] == pytest.approx(PACKAGE_W * row["measured_sec"], rel=CLOSE)


@pytest.mark.slow
@best_of_rounds
def test_a_servers_idle_power_is_the_first_meters(llem: Run, powercap: str) -> None:
    """As the total, from which it is taken; the package's energy stands beside both."""
    served = ("--server", "simulated", "--meter", "simulated,rapl", "--rate", "20")
    done = llem("measure", *served, *QUICK, LLEM_POWERCAP=powercap)
    assert done.returncode == 0, done.stderr
    row = figures(llem)
    assert row["server_idle_power_w"] == pytest.approx(100.0, rel=CLOSE)
    with delays():
        assert row["energy_cpu_j"] == pytest.approx(PACKAGE_W * row["measured_sec"], rel=CLOSE)


@pytest.mark.slow
def test_a_baseline_is_reused_for_all_of_them(llem: Run, powercap: str) -> None:
    """One that does not cover the other meter's devices is refused, with their names."""
    alone = llem("measure", *SIMULATED, *QUICK)
    assert alone.returncode == 0
    refused = llem("measure", *TOGETHER, "--baseline-from", "@last", LLEM_POWERCAP=powercap)
    assert refused.returncode != 0 and "expected rapl-package-0" in refused.stderr
    assert llem("measure", *TOGETHER, LLEM_POWERCAP=powercap).returncode == 0
    reused = llem("measure", *TOGETHER, "--baseline-from", "@last", LLEM_POWERCAP=powercap)
    assert reused.returncode == 0, reused.stderr


@pytest.mark.slow
def test_a_counter_that_goes_away_is_null_with_its_reason(llem: Run, tmp_path: Path) -> None:
    """The other meter's energy is not touched by it."""
    with TickingPowercap(tmp_path / "powercap") as ticking:
        (ticking.root / "intel-rapl:0:0" / "energy_uj").unlink()
        done = llem("measure", *TOGETHER, LLEM_POWERCAP=str(ticking.root))
    assert done.returncode == 0, done.stderr
    row = figures(llem)
    assert row["total_energy_j"] is not None and row["energy_cpu_j"] is not None
    assert row["energy_dram_j"] is None
    assert any("energy of rapl-package-0-dram was not measured" in text for text in row["warnings"])


@pytest.mark.parametrize(
    ("meter", "said"),
    [
        ("simulated,ghost", "plan key meter.also[0]: found 'ghost', expected one of nvml"),
        ("simulated,", "plan key meter.also[0]: found ''"),
        ("simulated,auto", "plan key meter.also[0]: found 'auto'"),
        ("auto,rapl", "meter.also: found auto with rapl, expected a first meter by its name"),
        ("simulated,simulated", "meter.also: found simulated twice, expected each meter once"),
        ("nvml,zeus", "nvml and zeus both read GPUs, expected at most one meter of GPUs and one of the CPU"),
        ("rapl,estimate", "rapl and estimate both read the CPU"),
    ],
)
def test_meters_that_cannot_be_read_together_are_refused(
    llem: Run, store: Path, meter: str, said: str
) -> None:
    """One line that says why, also by --dry-run, and nothing is written."""
    for command in (("measure", "--dry-run"), ("measure", *SIMULATED)):
        done = llem(*command, "--meter", meter)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and not store.exists()


def test_one_that_is_not_here_is_refused_before_anything_is_measured(
    llem: Run, store: Path, tmp_path: Path
) -> None:
    """With what stands in its way, and what goes without it."""
    done = llem("measure", *TOGETHER, LLEM_POWERCAP=str(tmp_path / "nothing"))
    assert done.returncode == 2 and not store.exists()
    assert "meter rapl: found no intel-rapl package" in done.stderr
    assert "--meter simulated goes without it" in done.stderr


def test_the_resolved_plan_has_both(llem: Run) -> None:
    """As keys that a plan can hold again; --meter wins over both keys of a plan."""
    dry_run = ("measure", "--engine", "simulated", "--dry-run")
    done = llem(*dry_run, "--meter", "nvml, rapl")
    assert 'name = "nvml"' in done.stdout and 'also = ["rapl"]' in done.stdout
    done = llem(*dry_run, "--set", 'meter.also=["rapl"]', "--meter", "nvml")
    assert "also = []" in done.stdout


@pytest.mark.slow
def test_the_log_names_the_others_apart(llem: Run, store: Path, powercap: str) -> None:
    """A reader that knows one meter only finds the first's devices where they always stood."""
    llem("measure", *TOGETHER, LLEM_POWERCAP=powercap)
    (started,) = events_of(store, "sampler", "meter_started")
    (process,) = events_of(store, "worker", "process_started")
    assert [metered["device"]["uuid"] for metered in started["devices"]] == ["SIM-0"]
    assert [device["uuid"] for device in process["devices"]] == ["SIM-0"]
    (other,) = started["beside"]
    assert other["meter"] == "rapl" and len(other["devices"]) == 2
