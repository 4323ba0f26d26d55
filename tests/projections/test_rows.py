"""Rows of processes, devices and hosts say what the log does, column by column, and nothing where it says nothing."""

from typing import Any

import pytest

from llem.plan import ModelPlan
from llem.projections.derive.experiment import Derived
from llem.projections.derive.rows import devices, experiment_results, hosts, processes
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    ClocksCompared,
    Device,
    Estimated,
    Event,
    ExperimentStarted,
    HostJoined,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    ProcessFailed,
    ProcessStarted,
    PromptsEncoded,
    SamplingCompleted,
    SensorCalibrated,
    StudyPlace,
    WarmupCompleted,
)
from tests.projections.in_memory import derive, segment
from tests.world import HOST, supervisor_events

GPU = Device(
    host=HOST,
    uuid="GPU-0",
    index=3,
    name="A100",
    kind="mig",
    mig_profile="1g.5gb",
    parent_uuid="GPU-9",
    pci_id="0000:41:00.0",
    memory_bytes=2**33,
    power_limit_mw=250_000,
)
STARTED = ProcessStarted(
    process_index=2,
    devices=[GPU],
    engine="transformers",
    versions={"torch": "2"},
    environment={"CI": "1"},
    group_id="g",
    group_rank=1,
)
MODEL = ModelLoaded(
    model_name="tiny",
    weights="random",
    source="preset",
    dtype="bf16",
    device="cuda:1",
    parameters=1_234,
    load_time_ns=1_500_000_000,
    attention="sdpa",
    cache="dynamic",
    compiled=True,
    quantization="gptq",
    adapter="lora",
    generation={"top_k": 5},
    missing={"revision": "a path"},
)
METERED = MeteredDevice(
    device=GPU,
    energy_source="counter",
    power_kind="average",
    counter_tick_ns=20_000_000,
    missing={"fan": "none"},
)


def of_worker(*events: Event) -> Derived:
    """An experiment of which one process said these, one a second."""
    said = [(float(number), event) for number, event in enumerate(events)]
    return derive((segment("worker", index=2, pid=77), said))


def test_the_row_of_a_process() -> None:
    """What it is, what it loaded, what was asked of it, and how it was sampled."""
    (row,) = processes(
        of_worker(
            STARTED,
            MODEL,
            PromptsEncoded(prompts=4, input_tokens=32, prompt_set_sha256="sha"),
            WarmupCompleted(
                latencies_ms=[1.0, 2.0], coefficient_of_variation=0.1, converged=True, reason="r"
            ),
            MeterStarted(meter="nvml", process_index=2, sample_hz=12.5, devices=[METERED]),
            SamplingCompleted(samples=0, samples_dropped=6, deadlines_missed=7),
            ProcessFailed(process_index=2, error_type="E", message="m", stage="s"),
        )
    )
    assert row == {
        "experiment_id": "run-1",
        "process_index": 2,
        "segment_id": f"worker-2-{HOST}",
        "host": HOST,
        "group_id": "g",
        "group_rank": 1,
        "pid": 77,
        "status": "failed",
        "problem": "s: m",
        "engine": "transformers",
        "model_name": "tiny",
        "weights": "random",
        "dtype": "bf16",
        "device": "cuda:1",
        "attention": "sdpa",
        "cache": "dynamic",
        "compiled": True,
        "quantization": "gptq",
        "adapter": "lora",
        "generation": {"top_k": 5},
        "unknown": {"revision": "a path"},
        "parameters": 1_234,
        "load_sec": 1.5,
        "warmup_batches": 2,
        "warmup_converged": True,
        "prompt_set_sha256": "sha",
        "meter": "nvml",
        "sample_hz": 12.5,
        "samples_dropped": 6,
        "deadlines_missed": 7,
        "versions": {"torch": "2"},
        "environment": {"CI": "1"},
    }


def test_the_row_of_a_process_that_said_nothing() -> None:
    """It has a place and a state."""
    (row,) = processes(of_worker())
    known = {name for name, column in row.items() if column not in (None, {})}
    assert known == {"experiment_id", "process_index", "segment_id", "host", "pid", "status"}
    assert row["status"] == "incomplete"


def test_the_row_of_a_device() -> None:
    """What it is, how it was read, and its idle power before and after."""
    idle = {"std_power_w": 1.5, "samples": 30}
    (row,) = devices(
        of_worker(
            STARTED,
            MeterStarted(meter="nvml", process_index=2, sample_hz=10.0, devices=[METERED]),
            BaselineMeasured(
                position="before",
                duration_s=3.0,
                devices=[BaselinePower(device_uuid="GPU-0", mean_power_w=50.0, **idle)],
                age_s=60.0,
            ),
            BaselineMeasured(
                position="after",
                duration_s=3.0,
                devices=[BaselinePower(device_uuid="GPU-0", mean_power_w=52.0, **idle)],
            ),
            SensorCalibrated(
                host=HOST,
                device_uuid="GPU-9",
                sensor="power_mw",
                counter_over_power=Estimated(value=1.02),
                experiment_id="before",
                age_s=90.0,
            ),
        )
    )
    assert row == {
        "experiment_id": "run-1",
        "process_index": 2,
        "host": HOST,
        "device_uuid": "GPU-0",
        "device_index": 3,
        "device_name": "A100",
        "kind": "mig",
        "mig_profile": "1g.5gb",
        "parent_uuid": "GPU-9",
        "pci_id": "0000:41:00.0",
        "memory_bytes": 2**33,
        "power_limit_w": 250.0,
        "meter": "nvml",
        "energy_source": "counter",
        "power_kind": "average",
        "counter_tick_sec": 0.02,
        "baseline_power_w": 50.0,
        "baseline_std_w": 1.5,
        "baseline_age_sec": 60.0,
        "baseline_after_w": 52.0,
        "missing": {"fan": "none"},
        "calibrated_by": "before",
        "calibration_age_sec": 90.0,
        "counter_over_power": 1.02,
    }


def test_the_row_of_a_device_of_which_only_the_name_is_known() -> None:
    """No meter read it, and its idle power was not measured."""
    named = Device(host=HOST, uuid="GPU-0", index=0, name="A100", kind="gpu")
    (row,) = devices(of_worker(ProcessStarted(process_index=2, devices=[named], engine="e")))
    known = {name for name, column in row.items() if column not in (None, {})}
    who = {"experiment_id", "process_index", "host"}
    assert known == who | {"device_uuid", "device_index", "device_name", "kind"}


def joined(rank: int, **fields: Any) -> HostJoined:
    return HostJoined(rank=rank, size=2, host=f"node-{rank}", launcher="slurm", **fields)


def compared(position: str, rank: int, offset_ns: int) -> ClocksCompared:
    """Its bound is a tenth of the offset, which differs by one between the clocks."""
    return ClocksCompared(
        position=position,
        rank=rank,
        host=f"node-{rank}",
        reference_host="node-0",
        offset_ns=offset_ns,
        monotonic_offset_ns=offset_ns + 1,
        error_ns=offset_ns // 10,
        exchanges=3,
    )


def test_the_rows_of_hosts() -> None:
    """Each rank's, with its clocks beside rank 0's, where they were compared."""
    first = joined(0)
    second = joined(1, local_rank=4, local_size=5, node_rank=6, restart=7)
    derived = derive(
        (segment("supervisor", host="node-0", boot_id="a"), [(0.0, first)]),
        (
            segment("rank", index=1, host="node-1", boot_id="b"),
            [(0.0, second), (1.0, compared("before", 1, 1_000)), (2.0, compared("after", 1, 2_000))],
        ),
    )
    rows = {row["rank"]: row for row in hosts(derived)}
    assert rows[1] == {
        "experiment_id": "run-1",
        "rank": 1,
        "ranks": 2,
        "host": "node-1",
        "launcher": "slurm",
        "local_rank": 4,
        "local_size": 5,
        "node_rank": 6,
        "restarts": 7,
        "clock_offset_ns": 1_000,
        "clock_offset_after_ns": 2_000,
        "monotonic_offset_ns": 1_001,
        "monotonic_offset_after_ns": 2_001,
        "clock_error_ns": 100,
        "clock_error_after_ns": 200,
        "placement_error_ns": 700,
    }
    assert {name for name, column in rows[0].items() if column is None} == {
        *("local_rank", "local_size", "node_rank", "clock_offset_ns", "clock_offset_after_ns"),
        *("monotonic_offset_ns", "monotonic_offset_after_ns", "clock_error_ns", "clock_error_after_ns"),
    }
    assert (rows[0]["rank"], rows[0]["restarts"], rows[0]["placement_error_ns"]) == (0, 0, 0)


def planned(plan: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The row of the result of an experiment that measured nothing."""
    (_, begun), _ = supervisor_events()
    known = {name: getattr(begun, name) for name in begun.__struct_fields__}
    started = ExperimentStarted(**known | {"plan": plan} | fields)
    (row,) = experiment_results(derive((segment("supervisor"), [(0.0, started)])))
    return row


MODEL_OF_PLAN = {"model": {"name": "gpt2"}, "engine": {"name": "transformers", "batch_size": 8}}


@pytest.mark.parametrize(
    ("plan", "fields", "expected"),
    [
        (MODEL_OF_PLAN, {}, ("gpt2", "transformers", 8)),
        (MODEL_OF_PLAN, {"command": ["python", "train.py"]}, (None, "command", None)),
        ({**MODEL_OF_PLAN, "server": {"kind": "vllm"}}, {}, ("gpt2", "vllm", None)),
        ({"model": {"name": ModelPlan().name}, "server": {"kind": "vllm"}}, {}, (None, "vllm", None)),
        ({}, {}, (None, None, None)),
    ],
    ids=["a model", "a program", "a server", "a server of nobody knows what", "nothing"],
)
def test_what_would_have_been_measured(
    plan: dict[str, Any], fields: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """Of an experiment that measured nothing its plan says it."""
    row = planned(plan, **fields)
    assert (row.get("model_name"), row["engine"], row.get("batch_size")) == expected
    assert (row["processes"], row["invalid_reasons"]) == (0, [])


def test_the_row_of_a_result_says_where_in_a_study_it_stands() -> None:
    """And which cell of it it is."""
    study = StudyPlace(study_id="s", cell_index=1, cell={"a": 1}, block=2, position=3)
    row = planned({"name": "n"}, study=study, cell_hash="c", labels={"k": "v"}, expected_processes=4)
    known: dict[str, Any] = {"name": "n", "expected_processes": 4, "cell_hash": "c", "study_id": "s"}
    known |= {
        "cell": {"a": 1},
        "block": 2,
        "position": 3,
        "labels": {"k": "v"},
        "measurement_config_hash": "hash",
    }
    assert {name: row[name] for name in known} == known
