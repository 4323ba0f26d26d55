"""Every figure of a few experiments that say much, as it was before: `pytest tests/projections/test_kept_figures.py --update-goldens` renews the files, and git diff shows which changed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from llem.plan import Plan, WindowsPlan
from llem.projections import catch_up, open_readonly
from llem.store import Store
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    Event,
    ExperimentInterrupted,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    PromptsEncoded,
    Region,
    RegionsReported,
    RequestsCompleted,
    ResultImported,
    SamplesDropped,
    WarmupCompleted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
    WorkReported,
)
from tests.world import (
    CLOSED_S,
    Dated,
    at,
    device,
    edges,
    experiment,
    model,
    request,
    sampler_events,
    server_events,
    supervisor,
    with_package,
    worker_events,
    write,
)

FOLDER = Path(__file__).with_name("figures")
PREDECESSOR = Path(__file__).parents[1] / "export" / "predecessor_result.json"
IMPORTED = "llenergymeasure-2.0"
# What the plan says by default, which code wrote it, and all figures once more as one text.
TABLES = {
    "experiments": "* EXCLUDE (plan)",
    "processes": "*",
    "devices": "*",
    "windows": "*",
    "batches": "*",
    "request_shares": "*",
    "warnings": "*",
    "raw_process_results": "* EXCLUDE (result)",
    "experiment_results": "* EXCLUDE (result, results_version)",
    "requests": "*",
    "segments": "* EXCLUDE (file_bytes, modified_ns, applied_bytes, digest, schema_version)",
    "events": "event_number, block_number, type, version, at_ns, process_index",
    "samples": "device_uuid, count(*), sum(power_w), sum(energy_j), max(temperature_c), sum(at_ns)",
}


def changed(events: Sequence[Dated], event_type: type, **fields: Any) -> list[Dated]:
    """Events of a type say something else."""
    return [
        (second, msgspec.structs.replace(event, **fields))
        if isinstance(event, event_type)
        else (second, event)
        for second, event in events
    ]


def also(events: Sequence[Dated], *more: Dated) -> list[Dated]:
    """More events, in their places."""
    return sorted([*events, *more], key=lambda dated: dated[0])


def engine(store: Store, name: str) -> None:
    """All that an engine can say, with a package beside its GPU, which is throttled and grows warmer, and was asked in batches of two."""
    asked = [
        request(n, 10.2 + 4 * (n // 2), batch_index=n // 2, batch_size=2, tokens=3 + n) for n in range(8)
    ]
    asked[3] = request(3, 14.2, batch_index=1, batch_size=2, tokens=2, finish_reason="error", error="odd")
    batches = [
        (12.0 + 4 * n, RequestsCompleted(window="measurement", requests=asked[2 * n : 2 * n + 2]))
        for n in range(4)
    ]
    idle = BaselinePower(device_uuid="GPU-0", mean_power_w=60.0, std_power_w=2.0, samples=20)
    told: list[Dated] = [
        (4.9, PromptsEncoded(prompts=8, input_tokens=64, prompt_set_sha256="aa")),
        (
            7.9,
            WarmupCompleted(
                latencies_ms=[130.0, 120.0], coefficient_of_variation=0.05, converged=True, reason=""
            ),
        ),
        (20.0, WarningRaised(code="slow", text="a slow disk")),
        (CLOSED_S, WindowOpened(kind="guard")),
        (32.0, WindowClosed(kind="guard")),
        (33.0, BaselineMeasured(position="after", duration_s=2.0, devices=[idle])),
    ]
    worker = also(worker_events(batches=batches), *told)
    gpu = device(memory_bytes=2**34, power_limit_mw=400_000, pci_id="0:1")
    worker = changed(
        worker,
        ModelLoaded,
        parameters=1_200,
        load_time_ns=3 * 10**9,
        attention="sdpa",
        cache="DynamicCache",
        compiled=False,
        generation={"top_k": 1},
        doubts=["odd weights"],
        missing={"quantization": "unknown"},
    )
    worker = changed(worker, ProcessStarted, devices=[gpu], versions={"torch": "2"}, environment={"cpu": "x"})
    metered = MeteredDevice(
        device=gpu,
        energy_source="counter",
        power_kind="average",
        power_window_ns=10**8,
        counter_tick_ns=2 * 10**7,
    )
    sampler = sampler_events(
        counter_j=lambda second: 1_000.0 + 204.0 * (second - 10.0),
        temperature_c=lambda second: 50.0 + second / 2,
        throttle=lambda second: 4 if 12 < second < 15 else 1 if second > 28 else 0,
    )
    sampler = changed(sampler, MeterStarted, devices=[metered])
    worker, sampler = with_package(worker, also(sampler, (20.0, SamplesDropped(count=2, reason="busy"))))
    experiment(
        store, experiment_id=name, worker=worker, sampler=sampler, plan=Plan(name="much"), labels={"a": "b"}
    )


def pair(store: Store, name: str) -> None:
    """Two processes on two hosts, of which one began later; neither has a counter."""
    supervisor(store, processes=2, experiment_id=name)
    for index, host in enumerate(("alpha", "beta")):
        gpu: dict[str, Any] = {"uuid": f"GPU-{index}", "host": host}
        segment: dict[str, Any] = {"index": index, "experiment_id": name, "host": host, "boot_id": host}
        worker = worker_events(index, counter_j=None, opened_s=10.0 + index, **gpu)
        write(store, worker, role="worker", **segment)
        write(store, sampler_events(index, source="integrated", **gpu), role="sampler", **segment)


def server(store: Store, name: str) -> None:
    """A server that was drained, with its counters, its load, its idle power and a cache."""
    experiment(store, experiment_id=name, worker=server_events())


def program(store: Store, name: str) -> None:
    """A wrapped program that named its regions and its work."""

    def region(index: int, name: str, began_s: float, ended_s: float | None, **fields: Any) -> Region:
        ended_ns = None if ended_s is None else at(ended_s)
        return Region(
            index=index, name=name, process="7.5", began_ns=at(began_s), ended_ns=ended_ns, **fields
        )

    regions = [
        region(0, "epoch", 12.0, 20.0, tokens=200, requests=4),
        region(1, "step", 12.0, 14.0, parent_index=0, tokens=50),
        region(2, "blink", 16.0, 16.01),
        region(3, "open", 25.0, None),
    ]
    windows = [dated for dated in worker_events(requests=[]) if dated[1].TYPE.startswith("window")]
    worker = also(
        windows,
        (0.5, ProcessStarted(process_index=0, devices=[device()], engine="command")),
        (29.0, RegionsReported(regions=regions)),
        (29.5, WorkReported(tokens=300, input_tokens=100, output_tokens=200, requests=6)),
        (31.0, ProcessCompleted(process_index=0, exit_status=3)),
    )
    experiment(store, experiment_id=name, worker=worker)


def pieces(store: Store, name: str) -> None:
    """A measurement in two windows, with a counter that was not read at one edge, and no idle power."""
    closed = WindowClosed(kind="measurement", edges=edges("GPU-0", 2_000_000, 17.0))
    opened = WindowOpened(kind="measurement", window_index=1, edges=edges("GPU-0", None, 19.0))
    worker = also(worker_events(baseline_w=None), (17.0, closed), (19.0, opened))
    last = next(place for place in reversed(range(len(worker))) if isinstance(worker[place][1], WindowClosed))
    worker[last] = (CLOSED_S, msgspec.structs.replace(worker[last][1], window_index=1))
    plan = Plan(windows=WindowsPlan(baseline_s=0.0))
    experiment(store, experiment_id=name, worker=worker, sampler=sampler_events(hz=2.0), plan=plan)


def failed(store: Store, name: str) -> None:
    """The second of two processes failed, and the run was interrupted."""
    ended = ExperimentInterrupted(reason="stopped", processes_completed=1, processes_failed=1)
    experiment(store, experiment_id=name, processes=1, end=ended)
    broken = ProcessFailed(process_index=1, error_type="E", message="no memory", stage="loading")
    started = ProcessStarted(process_index=1, devices=[device("GPU-1")], engine="transformers")
    write(store, [(0.5, started), (2.0, model()), (3.0, broken)], role="worker", index=1, experiment_id=name)


def imported(store: Store, name: str) -> None:
    """The result of another program."""
    original = PREDECESSOR.read_bytes()
    event: Event = ResultImported(format=IMPORTED, file_name="x", file_sha256="x", original=original)
    write(store, [(0.0, event)], role="import", experiment_id=name)


DESCRIBED = [engine, pair, server, program, pieces, failed, imported]
NAMES = [describe.__name__ for describe in DESCRIBED]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Those of a store with all of them."""
    store = Store(tmp_path_factory.mktemp("kept") / "store").create()
    for describe in DESCRIBED:
        describe(store, describe.__name__)
    assert catch_up(store).refused == []
    with open_readonly(store) as connection:
        yield connection


@pytest.mark.parametrize("name", NAMES)
def test_figures_stay_what_they_were(tables: duckdb.DuckDBPyConnection, name: str, update: bool) -> None:
    """All that were kept; those that came later may stand beside them."""
    found = {table: list(figures(tables, name, table, columns)) for table, columns in TABLES.items()}
    path = FOLDER / f"{name}.json"
    if update:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    assert list(differences(found, msgspec.json.decode(path.read_bytes()))) == []


def figures(
    tables: duckdb.DuckDBPyConnection, name: str, table: str, columns: str
) -> Iterator[dict[str, Any]]:
    """Rows of the experiment, in an order of their own."""
    grouped = "GROUP BY device_uuid" if table == "samples" else ""
    asked = f"SELECT {columns} FROM {table} WHERE experiment_id = ? {grouped} ORDER BY ALL"
    answer = tables.execute(asked, [name])
    names = [column[0] for column in answer.description or ()]
    for row in answer.fetchall():
        yield {column: plain(value) for column, value in zip(names, row, strict=True)}


def plain(value: Any) -> Any:
    """As JSON has it, with nine digits."""
    match value:
        case datetime():
            return value.isoformat()
        case float():
            return float(f"{value:.9g}")
        case Mapping():
            return {key: plain(part) for key, part in value.items()}
        case list():
            return [plain(part) for part in value]
    return value


def differences(found: Any, kept: Any, place: str = "") -> Iterator[str]:
    """Where what was found is not what was kept."""
    match kept:
        case dict() if isinstance(found, dict):
            for key, part in kept.items():
                yield from differences(found.get(key), part, f"{place}.{key}")
        case list() if isinstance(found, list) and len(found) == len(kept):
            for number, pair in enumerate(zip(found, kept, strict=True)):
                yield from differences(*pair, f"{place}[{number}]")
        case float() if isinstance(found, int | float) and math.isclose(
            found, kept, rel_tol=1e-6, abs_tol=1e-9
        ):
            pass
        case _ if found != kept:
            yield f"{place}: found {found}, kept {kept}"
