"""Stores whose every figure, id and time is chosen, so that a screen about them is the same on every machine."""

from pathlib import Path

import msgspec

from llem.plan import LoadPlan, Plan, ServerPlan, WindowsPlan
from llem.projections import rebuild
from llem.store import Store
from llem_events.events import (
    Estimated,
    ExperimentCompleted,
    ExperimentInterrupted,
    ExperimentStarted,
    ProcessCompleted,
    ProcessStarted,
    SensorCalibrated,
    WindowClosed,
    WindowOpened,
)
from tests import calibration_run
from tests.world import (
    HOST,
    device,
    edges,
    experiment,
    request,
    sampler_events,
    server_events,
    with_package,
    worker_events,
    write,
)

PREDECESSOR = Path(__file__).parent.parent / "export" / "predecessor_result.json"
NAMED, TWO_GPUS, FAILING, INTERRUPTED, WRAPPED = (
    f"20260102-03040{number}-0123456789ab" for number in range(5, 10)
)
CALIBRATED, RELYING = (f"20260103-03040{number}-0123456789ab" for number in (0, 1))


def make(folder: Path) -> None:
    """`store` with one experiment of every usual kind, `damaged` with a whole one and one that is corrupt."""
    store = Store(folder / "store").create()
    windows = WindowsPlan(baseline_s=3.0)
    experiment(store, experiment_id=NAMED, plan=Plan(name="base", windows=windows), labels={"site": "lab"})
    experiment(
        store, experiment_id=TWO_GPUS, processes=2, plan=Plan(name="two\nlines \x1b[31mred", windows=windows)
    )
    _failing(store)
    _interrupted(store)
    _wrapped(store)
    damaged = Store(folder / "damaged").create()
    experiment(damaged, experiment_id=NAMED)
    experiment(damaged, experiment_id=TWO_GPUS)
    _flip_a_byte(next(damaged.log_path.glob(f"{TWO_GPUS}/sampler-*")))
    meters = Store(folder / "meters").create()
    worker, sampler = with_package(worker_events(), sampler_events())
    experiment(meters, experiment_id=NAMED, worker=worker, sampler=sampler)
    calibrated = Store(folder / "calibrated").create()
    make_calibrated(calibrated)
    served = Store(folder / "served").create()
    chat = Plan(name="chat", server=ServerPlan(kind="simulated"), load=LoadPlan(kind="open", rate=0.25))
    experiment(served, experiment_id=NAMED, plan=chat, worker=server_events())
    for place in (store, damaged, meters, calibrated, served):
        rebuild(place)
    (folder / "result.json").write_bytes(PREDECESSOR.read_bytes())
    (folder / "wrong.json").write_text("{}")
    (folder / "site.toml").write_text('[site]\npue = 1.5\nsource = "the operator"\ndate = "2025"\n')
    (folder / "study.toml").write_text(
        '[study]\nname = "batch size"\nrepeats = 2\n[study.vary]\n"engine.batch_size" = [1, 4, 16]\n'
    )


def _failing(store: Store) -> None:
    errors = ["CUDA out of memory", "CUDA out of memory", "logits are not finite"]
    failed = [
        request(number, 10.0 + 2 * number, tokens=0, finish_reason="error", error=error, first_token_ns=None)
        for number, error in enumerate(errors)
    ]
    good = [request(number, 10.0 + 2 * number) for number in range(3, 10)]
    experiment(store, experiment_id=FAILING, worker=worker_events(requests=[*failed, *good]))


def _interrupted(store: Store) -> None:
    end = ExperimentInterrupted(reason="stopped by SIGTERM", processes_completed=0, processes_failed=1)
    experiment(store, experiment_id=INTERRUPTED, end=end, worker=worker_events()[:-2])


def _wrapped(store: Store) -> None:
    started = ExperimentStarted(
        experiment_id=WRAPPED,
        plan={},
        measurement_config_hash="hash",
        expected_processes=1,
        llem_version="0",
        command=["sh", "-c", "echo a long command line; exit 3"],
    )
    ended = ExperimentCompleted(processes_completed=1, processes_failed=0)
    write(store, [(0.0, started), (40.0, ended)], role="supervisor", experiment_id=WRAPPED)
    worker = [
        (0.5, ProcessStarted(process_index=0, devices=[device()], engine="command")),
        (10.0, WindowOpened(kind="measurement", edges=edges("GPU-0", 1_000_000, 10.0))),
        (30.0, WindowClosed(kind="measurement", edges=edges("GPU-0", 5_080_000, 30.0))),
        (31.0, ProcessCompleted(process_index=0, exit_status=3)),
    ]
    write(store, worker, role="worker", index=0, experiment_id=WRAPPED)
    write(store, sampler_events(), role="sampler", index=0, experiment_id=WRAPPED)


def make_calibrated(store: Store) -> None:
    """A run that calibrates a GPU, of whose average nothing can be said, and one that relies on it."""
    of_gpu = {"host": HOST, "device_uuid": "GPU-0", "driver": "580.159.04"}
    instant = SensorCalibrated(
        **of_gpu,
        sensor="power_mw",
        averages="none",
        explained=0.97,
        power_refresh_s=Estimated(value=0.101, low=0.1005, high=0.1015),
        energy_refresh_s=Estimated(value=0.1, low=0.0999, high=0.1001),
        averaging_window_s=Estimated(value=0.0254, low=0.0238, high=0.027),
        delay_s=Estimated(value=0.004, low=-0.002, high=0.01),
        seen_share=Estimated(value=0.251, low=0.236, high=0.267),
        counter_over_power=Estimated(value=1.034, low=1.028, high=1.04),
        idle_w=Estimated(value=76.5, low=76.1, high=76.9),
        idle_spread_w=Estimated(value=0.42),
        load_w=Estimated(value=512.3, low=511.1, high=513.5),
        settling_s=Estimated(reason="the temperature still rose when the load ended"),
    )
    average = SensorCalibrated(
        **of_gpu, sensor="power_average_mw", reason="the load explains 12% of it, less than 75%"
    )
    experiment(
        store,
        experiment_id=CALIBRATED,
        plan=Plan(name="calibration"),
        worker=calibration_run.worker(),
        sampler=calibration_run.sampler(),
        found=[instant, average],
    )
    relied_on = msgspec.structs.replace(instant, experiment_id=CALIBRATED, age_s=10_500.0)
    experiment(store, experiment_id=RELYING, worker=[*worker_events(), (0.6, relied_on)])


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
