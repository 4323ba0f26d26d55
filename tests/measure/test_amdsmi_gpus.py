"""AMD GPUs through a stand-in of amdsmi, from the command line to the log: the energy is that of the GPU the model runs on."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import LLEM, QUICK, events_of, mostly_slow
from tests.measure.test_amd_gpus import WATTS, measured_watts

STAND_IN = Path(__file__).parents[1] / "simulated_amdsmi"
UUIDS = [f"GPU-{index + 10:016x}" for index in range(len(WATTS))]


def run(environment: dict[str, str], *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """llem on a host with AMD GPUs of so many watts."""
    host = {"PYTHONPATH": str(STAND_IN), "SIMULATED_AMD_WATTS": ",".join(map(str, WATTS)), **changes}
    return subprocess.run(
        [LLEM, "measure", "--engine", "simulated", *QUICK, *arguments],
        env={**environment, **host},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        (("--meter", "amd"), {"HIP_VISIBLE_DEVICES": "1"}, [1]),
        (("--meter", "amd", "--gpu", "2,0"), {}, [2, 0]),
        (("--meter", "amd", "--gpu", "0"), {"ROCR_VISIBLE_DEVICES": "2,1"}, [2]),
        (("--meter", "auto"), {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "0,2"}, [0, 2]),
    ],
)
def test_each_worker_gets_the_gpu_whose_energy_is_read(
    arguments: tuple[str, ...],
    changes: dict[str, str],
    expected: list[int],
    environment: dict[str, str],
    store: Path,
) -> None:
    """Pinned by UUID, recorded with the driver's version, counted by the counter of that GPU."""
    done = run(environment, *arguments, **changes)
    assert done.returncode == 0, done.stderr
    started = events_of(store, "worker", "process_started")
    assert [body["devices"][0]["uuid"] for body in started] == [UUIDS[index] for index in expected]
    seen = [body["environment"]["variables"]["ROCR_VISIBLE_DEVICES"] for body in started]
    assert seen == [UUIDS[index] for index in expected]
    assert measured_watts(store) == pytest.approx([WATTS[index] for index in expected], rel=0.02)
    assert started[0]["environment"]["hardware"]["cuda"]["driver_version"] == "6.12.12"


@pytest.mark.parametrize(
    ("arguments", "changes", "told"),
    mostly_slow(
        [
            (("--gpu", "7"), {}, "no such GPU"),
            ((), {"SIMULATED_AMD_WATTS": ""}, "expected AMD's driver"),
            (("--set", "engine.device=cpu"), {}, "no GPU is used"),
        ],
        every=3,
    ),
)
def test_what_cannot_be_measured_is_refused(
    arguments: tuple[str, ...], changes: dict[str, str], told: str, environment: dict[str, str], store: Path
) -> None:
    """In one line, before the baseline, with nothing written."""
    done = run(environment, "--meter", "amd", *arguments, **changes)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not store.exists()
