"""AMD GPUs through a stand-in of the zeus package: the energy is that of the GPU the model runs on, or the run is refused."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import LLEM, QUICK, events_of, mostly_slow

STAND_IN = Path(__file__).parents[1] / "simulated_zeus"
WATTS = (100.0, 160.0, 220.0)
ON_ZEUS = ("measure", "--engine", "simulated", "--meter", "zeus", *QUICK)


def run(
    environment: dict[str, str], *arguments: str, watts: tuple[float, ...] = WATTS, **changes: str
) -> subprocess.CompletedProcess[str]:
    """llem on a host with AMD GPUs of so many watts."""
    host = {"PYTHONPATH": str(STAND_IN), "SIMULATED_ZEUS_WATTS": ",".join(map(str, watts)), **changes}
    return subprocess.run(
        [LLEM, *ON_ZEUS, *arguments],
        env={**environment, **host},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def measured_watts(store: Path) -> list[float]:
    """Mean power of each process's only device between the edges of its measurement, by its energy counter."""
    opened, closed = (
        [body["edges"] for body in events_of(store, "worker", kind) if body["kind"] == "measurement"]
        for kind in ("window_opened", "window_closed")
    )
    return [
        (end["energy_mj"] - begin["energy_mj"]) / (end["at_ns"] - begin["at_ns"]) * 1e6
        for (begin,), (end,) in zip(opened, closed, strict=True)
    ]


def seen_by_workers(store: Path) -> list[str]:
    """What each worker may run on."""
    started = events_of(store, "worker", "process_started")
    return [body["environment"]["variables"]["HIP_VISIBLE_DEVICES"] for body in started]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mask", "chosen", "expected"),
    [
        ("2,0", "1", [0]),
        (None, "2", [2]),
        (None, "2,1", [2, 1]),
        (None, None, [0, 1, 2]),
        ("2,0", None, [2, 0]),
        ("2,0", "0", [2]),
        ("2,0", "zeus-gpu-0", [0]),
    ],
)
def test_the_right_gpu(
    mask: str | None, chosen: str | None, expected: list[int], environment: dict[str, str], store: Path
) -> None:
    """However the GPUs are numbered anew, each worker sees the one whose joules are its own."""
    changes = {} if mask is None else {"HIP_VISIBLE_DEVICES": mask}
    done = run(environment, *(("--gpu", chosen) if chosen else ()), **changes)
    assert done.returncode == 0, done.stderr
    assert seen_by_workers(store) == [str(index) for index in expected]
    assert measured_watts(store) == pytest.approx([WATTS[index] for index in expected], rel=0.02)
    devices = [body["devices"][0]["uuid"] for body in events_of(store, "worker", "process_started")]
    assert devices == [f"zeus-gpu-{index}" for index in expected]


@pytest.mark.parametrize(
    ("arguments", "changes", "told"),
    mostly_slow(
        [
            (("--gpu", "7"), {}, "no such GPU"),
            ((), {"SIMULATED_ZEUS_WATTS": ""}, "AMDSMI unavailable"),
            (("--gpu", "0"), {"SIMULATED_ZEUS_WATTS": ""}, "AMDSMI unavailable"),
            (("--gpu", "0"), {"ROCR_VISIBLE_DEVICES": "1,0"}, "HIP_VISIBLE_DEVICES"),
            (("--gpu", "0"), {"HIP_VISIBLE_DEVICES": "GPU-1234"}, "indices"),
            (("--gpu", "0"), {"HIP_VISIBLE_DEVICES": "1,1"}, "twice"),
            (("--set", "engine.device=cpu"), {}, "no GPU is used"),
            (("--gpu", "0", "--set", "engine.device=cpu"), {}, "engine.device=cpu"),
        ],
        every=4,
    ),
)
def test_what_cannot_be_measured_is_refused(
    arguments: tuple[str, ...], changes: dict[str, str], told: str, environment: dict[str, str], store: Path
) -> None:
    """In one line, before the baseline, with nothing written."""
    done = run(environment, *arguments, **changes)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not store.exists()


@pytest.mark.slow
def test_what_a_gpu_does_not_tell_is_missing(environment: dict[str, str], store: Path) -> None:
    """AMD's library says N/A in the place of a temperature: the column is missing with its reason, and the energy is measured."""
    done = run(environment, "--gpu", "1", SIMULATED_ZEUS_TEMPERATURE="N/A")
    assert done.returncode == 0, done.stderr
    assert measured_watts(store) == pytest.approx([WATTS[1]], rel=0.02)
    (device,) = events_of(store, "sampler", "meter_started")[0]["devices"]
    assert "N/A" in device["missing"]["temperature_c"]


@pytest.mark.slow
def test_a_named_meter_that_cannot_be_opened_ends_the_run(environment: dict[str, str], store: Path) -> None:
    """What was there a moment ago and is gone: every process stops before anything is measured without energy."""
    done = run(environment, SIMULATED_ZEUS_POWER="broken")
    assert done.returncode == 2, done.stderr
    assert "failed while opening its meter" in done.stderr and "libamd_smi.so is gone" in done.stderr
    assert not [body for body in events_of(store, "worker", "window_opened") if body["kind"] != "baseline"]
    assert next((store / "log").iterdir()).name in done.stderr
