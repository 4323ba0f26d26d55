"""Processes with anything in any field, and batches at random, give what they gave before; `--update-goldens` keeps what they give now."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from llem.results import ExperimentResult, RawProcessResult, Timestamps, aggregate_results
from llem.results.figures import EXPERIMENT_FIGURES, PROCESS_FIGURES, row
from llem.results.phases import Trace, batch_energies
from tests.world import latencies, wall_time

FOLDER = Path(__file__).with_name("golden")
CASES = range(6)
WORDS = {
    "energy_source": ("counter", "integrated", "estimated", None),
    "kind": ("gpu", "gpu", "mig", "cpu_package"),
    "dtype": ("bfloat16", "float32", None),
    "status": ("completed", "completed", "interrupted", "failed"),
}


def at(place: str) -> np.random.Generator:
    """The same at one place, whatever other fields there are."""
    return np.random.default_rng(zlib.crc32(place.encode()))


def at_random(kind: inspect.Type, place: str) -> Any:
    """Something of a type; in odd cases None of a quarter of what may be None, in even ones of little."""
    rng, missing = at(place), 0.25 if int(place[0]) % 2 else 0.02
    match kind:
        case inspect.UnionType(types=types):
            known = [choice for choice in types if not isinstance(choice, inspect.NoneType)]
            return (
                None
                if len(known) < len(types) and rng.random() < missing
                else at_random(known[0], f"{place}|")
            )
        case inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: _field(field, f"{place}/{field.name}") for field in fields})
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [at_random(item, f"{place}/{number}") for number in range(rng.integers(0, 3))]
        case inspect.TupleType(item_types=items):
            return tuple(at_random(item, f"{place}/{number}") for number, item in enumerate(items))
        case inspect.DictType(key_type=key, value_type=item):
            return {at_random(key, f"{place}/key"): at_random(item, f"{place}/item")}
        case inspect.LiteralType(values=values):
            return values[rng.integers(len(values))]
        case inspect.DateTimeType():
            return wall_time(float(rng.integers(0, 100)))
        case inspect.BoolType():
            return bool(rng.random() < 0.3)
        case inspect.IntType():
            return int(rng.integers(1, 1_000))
        case inspect.FloatType():
            return float(rng.integers(1, 4_000) / 8)
    return f"text {rng.integers(0, 4)}"


def _field(field: inspect.Field, place: str) -> Any:
    words = WORDS.get(field.name)
    return at_random(field.type, place) if words is None else words[at(place).integers(len(words))]


def process(case: int, index: int) -> RawProcessResult:
    """One of an experiment, whose devices others may use too."""
    place, replace = f"{case}/{index}", msgspec.structs.replace
    found: RawProcessResult = at_random(inspect.type_info(RawProcessResult), place)
    start_s, lasts_s = at(f"{place}/span").integers((0, 5), (4, 9)).tolist()
    start, end = wall_time(start_s), wall_time(start_s + lasts_s)
    parts = [(start, wall_time(start_s + 2)), (wall_time(start_s + 3), end)]
    measured = latencies(*at(f"{place}/latencies").integers(1, 500, 3).tolist())
    return replace(
        found,
        experiment_id="run",
        backend="vllm",
        process_index=index,
        group_rank=None,
        timestamps=Timestamps.from_times(start, end),
        windows=parts if at(f"{place}/parts").random() < 0.3 else [],
        inference_metrics=replace(
            found.inference_metrics,
            latency_measurements=measured if found.inference_metrics.latency_measurements else None,
        ),
        devices=[
            replace(each, host="h", uuid=f"GPU-{at(f'{place}/uuid/{number}').integers(0, 4)}")
            for number, each in enumerate(found.devices)
        ],
        energy_tracking_failed=False,
    )


def joined(case: int) -> dict[str, Any]:
    """Path -> value of all that is said of three processes together."""
    processes = [process(case, index) for index in range(3)]
    result: ExperimentResult = aggregate_results(processes, "run", "hash", strict=False)
    whole = msgspec.to_builtins(msgspec.structs.replace(result, process_results=[]))
    return dict(_flat(whole, ""))


def _flat(part: Any, place: str) -> list[tuple[str, Any]]:
    if isinstance(part, dict):
        return [each for name, item in part.items() for each in _flat(item, f"{place}/{name}")]
    if isinstance(part, list | tuple):
        return [each for number, item in enumerate(part) for each in _flat(item, f"{place}/{number}")]
    return [(place, part)]


def phases(case: int) -> dict[str, Any]:
    """Path -> value of the energies of batches at random, seen by one or two devices whose readings have gaps."""
    starts_sec, first_tokens_sec, ends_sec = np.sort(
        at(f"{case}/batches").uniform(-0.5, 20.5, (3, 12)), axis=0
    )
    unknown = at(f"{case}/tokens").random(12) < 0.1
    found = batch_energies(
        [trace(f"{case}/{number}") for number in range(1 + case % 2)],
        starts_sec=starts_sec,
        first_tokens_sec=np.where(unknown, np.nan, first_tokens_sec),
        ends_sec=ends_sec,
    )
    return dict(_flat([msgspec.to_builtins(each) for each in found], ""))


def trace(place: str) -> Trace:
    """Twenty seconds of a device with a counter, whose power an average may hide."""
    rng = at(place)
    at_sec = 0.05 * np.arange(400) + rng.uniform(0.0, 0.02, 400)
    power_w = 200.0 + 100.0 * np.sin(at_sec) + rng.uniform(0, 20, 400)
    energy_j = np.floor((200.0 * at_sec - 100.0 * np.cos(at_sec)) * 10) / 10
    return Trace(
        at_sec=at_sec,
        power_w=np.where(rng.random(400) < 0.003, np.nan, power_w),
        energy_j=energy_j,
        counter_tick_sec=(None, 0.1)[rng.integers(2)],
        power_window_sec=(0.0, 0.1, 1.0)[rng.integers(3)],
    )


def figures(case: int) -> dict[str, Any]:
    """Path -> value of the figures that a row of results has, of records with anything in any field."""
    rows = {
        record.__name__: row(
            [figure for figure in of_table if figure.is_exported],
            at_random(inspect.type_info(record), f"{case}/{record.__name__}"),
        )
        for record, of_table in ((ExperimentResult, EXPERIMENT_FIGURES), (RawProcessResult, PROCESS_FIGURES))
    }
    return dict(_flat(msgspec.to_builtins(rows), ""))


KINDS: dict[str, Callable[[int], dict[str, Any]]] = {"joined": joined, "phases": phases, "figures": figures}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_figures_stay_what_they_were(kind: str, case: int, update: bool) -> None:
    """Every figure, doubt and reason of processes that are joined, of batches, and of rows of results."""
    path, found = FOLDER / f"{kind}.json", KINDS[kind](case)
    kept = json.loads(path.read_text()) if path.exists() else {}
    if update:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(json.dumps(kept | {str(case): found}, indent=1, sort_keys=True) + "\n")
    before = found if update else kept[str(case)]
    assert found.keys() == before.keys()
    for place, value in found.items():
        numeric = isinstance(value, float) and before[place] is not None
        assert value == (pytest.approx(before[place], rel=1e-8) if numeric else before[place]), place
