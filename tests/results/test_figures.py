"""The list of figures: the page, the tables and the rows that are made from it."""

import re
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from msgspec import inspect

from llem.results import ExperimentResult, RawProcessResult
from llem.results.figures import (
    EXPERIMENT_FIGURES,
    PROCESS_FIGURES,
    REQUEST_FIGURES,
    REQUESTS_SQL,
    RESULTS_SQL,
    Figure,
    as_markdown,
    row,
)
from llem.versions import RESULTS_VERSION
from llem_events.events import Request
from tests.world import process

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"
TABLES: dict[str, tuple[tuple[Figure[Any], ...], type[msgspec.Struct]]] = {
    "experiment_results": (EXPERIMENT_FIGURES, ExperimentResult),
    "raw_process_results": (PROCESS_FIGURES, RawProcessResult),
}
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def filled(struct: type[msgspec.Struct]) -> Any:
    """A record in which every field, however deep, has a value, and no two numbers are equal."""
    numbers = count(1)

    def value(kind: inspect.Type) -> Any:
        match kind:
            case inspect.UnionType(types=types):
                return value(next(choice for choice in types if not isinstance(choice, inspect.NoneType)))
            case inspect.StructType(cls=cls, fields=fields):
                return cls(**{field.name: value(field.type) for field in fields})
            case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
                return [value(item)]
            case inspect.TupleType(item_types=items):
                return tuple(map(value, items))
            case inspect.DictType(key_type=key, value_type=item):
                return {value(key): value(item)}
            case inspect.LiteralType(values=values):
                return values[0]
            case inspect.DateTimeType():
                return START + timedelta(hours=next(numbers))
            case inspect.BoolType():
                return False
            case inspect.IntType():
                return next(numbers)
            case inspect.FloatType():
                return next(numbers) + 0.5
        return f"text {next(numbers)}"

    return value(inspect.type_info(struct))


def test_the_page_of_figures_is_up_to_date() -> None:
    """docs/figures.md is what the list of figures says."""
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), "run `just figures`"


def test_every_figure_has_a_title_of_words() -> None:
    """No two of them the same, and none with its unit, which stands beside it."""
    titles = {figure.name: figure.title for figure in EXPERIMENT_FIGURES}
    assert len(set(titles.values())) == len(titles)
    assert not [title for title in titles.values() if "_" in title or re.search(r" (ms|sec|j|w|mb)$", title)]
    assert (titles["mean_power_w"], titles["e2e_p95_ms"]) == ("mean power", "end to end p95")
    assert titles["inter_chunk_p99_ms"] == "time between chunks p99"
    assert (titles["ttft_mean_ms"], titles["itl_mean_ms"]) == (
        "time to first token mean",
        "inter-token latency mean",
    )
    assert titles["tpot_vllm_mean_ms"] == "time per output token vLLM mean"
    assert titles["avg_tokens_per_second"] == "average tokens per second"
    assert titles["output_tokens_per_kwh"] == "output tokens per kWh"
    assert (titles["gpu_utilisation_pct"], titles["flops_method"]) == ("GPU utilisation", "FLOPs method")


@pytest.mark.parametrize("table", TABLES)
def test_a_full_record_fills_its_row(table: str) -> None:
    """Every figure that a result alone tells is there, and no two columns hold the same number."""
    figures, struct = TABLES[table]
    found = row(figures, filled(struct))
    told = {figure.name: found[figure.name] for figure in figures if figure.is_exported}
    from_plan = {"name", "prompts"}
    assert {name for name, value in told.items() if value is None} <= from_plan
    numbers = [value for value in told.values() if isinstance(value, float)]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("table", TABLES)
def test_a_row_fits_its_table(table: str) -> None:
    """DuckDB takes every type of the list, and gives back what was put in."""
    figures, struct = TABLES[table]
    found = row([figure for figure in figures if figure.is_exported], filled(struct))
    found = {
        name: value.replace(tzinfo=None) if isinstance(value, datetime) else value
        for name, value in found.items()
    }
    with duckdb.connect() as connection:
        connection.execute(REQUESTS_SQL + RESULTS_SQL)
        places = ", ".join("?" * len(found))
        connection.execute(f"INSERT INTO {table} ({', '.join(found)}) VALUES ({places})", [*found.values()])
        (kept,) = connection.execute(f"SELECT {', '.join(found)} FROM {table}").fetchall()
    assert dict(zip(found, kept, strict=True)) == found


def test_every_field_of_a_request_has_a_column() -> None:
    """With DuckDB's type for it and the unit that the log's schema names."""
    types = {figure.name: (figure.type, figure.unit) for figure in REQUEST_FIGURES}
    assert set(types) >= set(Request.__struct_fields__)
    assert types["request_id"][0] == "BIGINT" and types["finish_reason"][0] == "VARCHAR"
    assert types["arrival_ns"] == ("BIGINT", "ns, monotonic")
    assert types["token_times_ns"][0] == "BIGINT[]"


def test_figures_that_are_no_fields_follow_from_fields() -> None:
    """Times in nanoseconds, the steady state's edges, what the plan says, and every doubt once."""
    whole = filled(ExperimentResult)
    doubts = msgspec.structs.replace(whole.aggregation, warnings=["a", "b"])
    result = msgspec.structs.replace(
        whole,
        start_time=START.astimezone(timezone(timedelta(hours=2))),
        steady_state_window=(1.5, 2.5),
        aggregation=doubts,
        measurement_warnings=["b", "c"],
        effective_config={"name": "base", "workload": {"source": "builtin"}},
    )
    found = row(EXPERIMENT_FIGURES, result)
    assert found["start_ns"] == 1_767_323_045_678_901_000
    assert (found["steady_state_from_sec"], found["steady_state_to_sec"]) == (1.5, 2.5)
    assert (found["warnings"], found["name"], found["prompts"]) == (["a", "b", "c"], "base", "builtin")
    assert (found["results_version"], found["result"]) == (RESULTS_VERSION, result)
    named = {"workload": {"source": "builtin", "path": "p.jsonl"}}
    prompts = {str(config): {"effective_config": config} for config in (named, {"workload": 5}, {})}
    rows = [row(EXPERIMENT_FIGURES, msgspec.structs.replace(result, **change)) for change in prompts.values()]
    assert [of["prompts"] for of in rows] == ["p.jsonl", None, None]
    cells = {figure.name: figure.cell for figure in EXPERIMENT_FIGURES if figure.cell}
    assert cells["warnings"](result) == "a; b; c"


def test_a_column_says_its_unit_and_its_meaning() -> None:
    """In its comment; a figure without a unit says its meaning alone."""
    comments = {figure.name: figure.comment for figure in EXPERIMENT_FIGURES}
    assert comments["mean_power_w"].startswith("[W] ") and comments["engine"] == "what ran the model"
    assert "    duration_sec DOUBLE, -- [s] end minus start\n" in RESULTS_SQL
    assert "    engine VARCHAR, -- what ran the model\n" in RESULTS_SQL


def test_a_figure_is_wanted_low_or_high_or_neither() -> None:
    """Nothing else is asked for by those who say which of two is better."""
    for figures in (EXPERIMENT_FIGURES, PROCESS_FIGURES, REQUEST_FIGURES):
        assert {figure.better for figure in figures} <= {None, "lower", "higher"}


def test_what_is_missing_is_none_and_zero_is_zero() -> None:
    """A part that a result lacks leaves its figures unknown; an idle power of 0 W is not replaced by another's."""
    whole = filled(ExperimentResult)
    bare = msgspec.structs.replace(
        whole, thermal_throttle=None, steady_state_window=None, aggregation=None, measurement_warnings=[]
    )
    found = row(EXPERIMENT_FIGURES, bare)
    assert (
        found["throttle_sec"] is found["steady_state_from_sec"] is found["temporal_overlap_verified"] is None
    )
    assert found["warnings"] == []
    still = row(EXPERIMENT_FIGURES, msgspec.structs.replace(whole, baseline_power_w=0.0))
    assert still["baseline_power_w"] == 0.0
    older = row(EXPERIMENT_FIGURES, msgspec.structs.replace(whole, baseline_power_w=None))
    assert older["baseline_power_w"] == whole.energy_breakdown.baseline_power_w
    assert row(PROCESS_FIGURES, process())["e2e_mean_ms"] is None
