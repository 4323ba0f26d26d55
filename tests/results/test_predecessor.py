"""A result of LLenergyMeasure is read with its figures, or refused with the field that does not fit."""

import json
import re
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.errors import ExportError
from llem.results import ExperimentResult
from llem.results.predecessor import imported, read_predecessor, strict_json
from tests.log.test_writing import changed, places

ORIGINAL = Path(__file__).parents[1] / "export" / "predecessor_result.json"
FIELDS: dict[str, Any] = json.loads(ORIGINAL.read_text())


def document(**changes: Any) -> str:
    """The result with some fields changed."""
    return json.dumps(FIELDS | changes)


def process(**changes: Any) -> list[dict[str, Any]]:
    """The list of its only process, with some fields changed."""
    return [FIELDS["process_results"][0] | changes]


IMPOSSIBLE: dict[str, tuple[str, str]] = {
    "an integer of 64 bits without a sign": (document(total_tokens=2**63), "does not fit into 64 bits"),
    "an integer of 400 digits": (document(total_tokens=10**400), "does not fit into 64 bits"),
    "an integer of 400 digits anywhere": (document(effective_config={"seed": 10**400}), "does not fit into 64 bits"),
    "an infinite number": (document().replace("1234.5678901234567", "1e999", 1), "range"),
    "a number of 400 digits": (document().replace("1234.5678901234567", "9" * 400 + ".0", 1), "range"),
    "infinity": (document(total_energy_j=float("-inf")), "malformed"),
    "no number": (document(total_energy_j=float("nan")), "malformed"),
    "negative tokens": (document(total_tokens=-70), "field total_tokens: found -70"),
    "a negative energy": (document(total_energy_j=-1.0), "field total_energy_j"),
    "a negative latency": (document(latency_stats={**FIELDS["latency_stats"], "ttft_mean_ms": -18_000.0}), "ttft_mean_ms"),
    "the year 9999": (document(start_time="9999-01-01T00:00:00", end_time="9999-01-01T00:00:01"), "9999"),
    "the year 1": (document(start_time="0001-01-01T00:00:00+14:00"), "0001|out of range"),
    "times that go back": (document(end_time="2026-03-01T11:59:59"), "not before 2026-03-01T12"),
    "a process's times that go back": (
        document(
            process_results=process(
                timestamps={"start": "2026-03-01T12:00:00", "end": "2026-03-01T11:00:00", "duration_sec": 1}
            )
        ),
        r"process_results\[0\]",
    ),
    "one index for two processes": (document(process_results=process() * 2), "process_index"),
    "a key twice": (document()[:-1] + ', "total_tokens": 1}', "total_tokens stands there twice"),
    "a key twice far down": (document(effective_config={}).replace("{}", '{"a": {"b": 1, "b": 2}}'), "b stands there twice"),
    "half a character": (document(labels={"a": "b"}).replace('"b"', '"\\ud800"'), "not a result"),
    "100,000 lists in each other": (document(effective_config=[]).replace("[]", "[" * 10**5 + "]" * 10**5), "not a result"),
    "a hundred lists in each other": (document(effective_config={"a": []}).replace("[]", "[" * 100 + "]" * 100), "nested more than 64 deep"),
    "100,000 lists and nothing else": ("[" * 10**5, "not a result"),
}  # fmt: skip


def read(**changes: Any) -> ExperimentResult:
    """The result with some fields changed, as ours."""
    return read_predecessor(document(**changes).encode())


def test_what_the_predecessor_hides_or_names_otherwise_is_found() -> None:
    """Model, precision, batch size, packages, wait after the warm-up, and the gaps between tokens."""
    result = read()
    assert (result.model_name, result.dtype, result.batch_size) == ("meta-llama/Llama-3.2-1B", "bf16", 8)
    assert result.environment_snapshot is not None and result.warmup_result is not None
    assert result.environment_snapshot.packages == {"torch": "2.6.0", "transformers": "4.49.0"}
    assert result.warmup_result.cooldown_sec == FIELDS["warmup_result"]["thermal_floor_wait_s"]
    theirs, ours = FIELDS["latency_stats"], result.latency_stats
    assert ours is not None
    assert (ours.itl_mean_ms, ours.itl_trimmed_mean_ms) == (theirs["itl_full_mean_ms"], theirs["itl_mean_ms"])
    assert ours.ttft_p99_ms == theirs["ttft_p99_ms"]
    assert read(process_results=[], effective_config={"model": "m"}).model_name == "m"


def test_a_process_is_renamed_as_the_whole_is() -> None:
    """Its packages and its wait after the warm-up; and the first one names the model before the plan does."""
    warmup = {"converged": True, "iterations_completed": 1, "thermal_floor_wait_s": 7.0}
    of_process = {"environment_snapshot": {"installed_packages": ["torch==1"]}, "warmup_result": warmup}
    result = read(process_results=process(model_name="other", **of_process))
    (one,) = result.process_results
    assert one.environment_snapshot is not None and one.warmup_result is not None
    assert (one.environment_snapshot.packages, one.warmup_result.cooldown_sec) == ({"torch": "1"}, 7.0)
    assert result.model_name == "other"


def test_what_has_our_names_already_keeps_them() -> None:
    """Latencies under both names, and a list of packages that is missing, are left as they are."""
    latencies = {"itl_mean_ms": 2.0, "itl_trimmed_mean_ms": 1.5}
    ours = read(latency_stats=latencies, environment_snapshot={"python_version": "3.11"})
    assert ours.latency_stats is not None and ours.environment_snapshot is not None
    assert (ours.latency_stats.itl_mean_ms, ours.latency_stats.itl_trimmed_mean_ms) == (2.0, 1.5)
    assert (ours.environment_snapshot.packages, ours.environment_snapshot.python_version) == ({}, "3.11")


def test_times_without_a_zone_are_utc() -> None:
    """Those of the result and of its processes; a time with a zone keeps it."""
    result = read()
    assert result.start_time == datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert result.process_results[0].timestamps.end == result.end_time
    assert result.process_results[0].timestamps.duration_sec == 20.123456
    early = read(start_time="2026-03-01T12:00:00+02:00")
    assert early.start_time == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_an_imported_result_keeps_its_old_name_as_a_label() -> None:
    """The id of this store is that of the result and of its processes."""
    result = imported(document(labels={"a": "b"}).encode(), experiment_id="new")
    assert {result.experiment_id, *(part.experiment_id for part in result.process_results)} == {"new"}
    assert result.labels == {"a": "b", "imported_id": FIELDS["experiment_id"]}


@pytest.mark.parametrize("nested", [63, 64])
def test_lists_in_each_other_are_read_up_to_the_limit(nested: int) -> None:
    """Sixty-four containers, the outermost counted, are a document; one more is none."""
    text = b"[" * nested + b"]" * nested
    assert strict_json(text) is not None
    with pytest.raises(ValueError, match="more than 64 deep"):
        strict_json(b"[" * (65 - nested) + text + b"]" * (65 - nested))


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_integers_are_read_up_to_64_bits(number: int) -> None:
    """Both ends are in, their neighbours out."""
    assert strict_json(str(number).encode()) == number
    with pytest.raises(ValueError, match="does not fit into 64 bits"):
        strict_json(str(number + (1 if number > 0 else -1)).encode())


def test_a_long_number_is_told_by_its_beginning() -> None:
    """Forty characters stand whole, of more the first forty and how many there are."""
    for digits, said in [("9" * 40, "9" * 40), ("9" * 41, f"{'9' * 40}... (41 characters)")]:
        with pytest.raises(ValueError, match=rf"integer {re.escape(said)} does not"):
            strict_json(digits.encode())


def test_a_clock_may_be_ahead_by_a_day() -> None:
    """More than that, or a time before 2000, is no time of a measurement; a result without duration is one."""
    now = datetime.now(UTC)
    for moment in (now + timedelta(hours=23), datetime(2000, 1, 1, tzinfo=UTC)):
        assert read(start_time=moment.isoformat(), end_time=moment.isoformat()).start_time == moment
    for moment in (now + timedelta(hours=25), datetime(1999, 12, 31, 23, tzinfo=UTC)):
        with pytest.raises(ExportError, match="start time"):
            read(start_time=moment.isoformat(), end_time=moment.isoformat())


@pytest.mark.parametrize("name", ["energy_adjusted_j", "baseline_power_w"])
def test_a_figure_is_negative_only_where_it_may_be(name: str) -> None:
    """Energy above the idle power can be; a power cannot."""
    with nullcontext() if "adjusted" in name else pytest.raises(ExportError, match=name):
        read(**{name: -0.5})


@pytest.mark.parametrize(
    "changes",
    [
        {"effective_config": {"seed": -1}},
        {"labels": {"offset": "-1"}},
        {"environment_snapshot": {"hardware": {"thermal": {"fan_speed_pct": -1.0}}}},
        {"process_results": process(gpu_id=-1, devices=[{"host": "h", "uuid": "u", "index": -1}])},
        {"process_results": process(warnings=[{"code": "c", "text": "t", "value": -1.0, "threshold": -2.0}])},
        {"process_results": process(temperature_drift_c=-1.5)},
        {"thermal_throttle": {**FIELDS["thermal_throttle"], "max_temperature_c": -1.5}},
        {"warmup_result": {**FIELDS["warmup_result"], "temperature_start_c": -1.5}},
        {"process_results": process(gpu_is_mig=False)},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_what_is_no_figure_may_be_negative(changes: dict[str, Any]) -> None:
    """Settings, numbers of devices, temperatures, and the values that a doubt is about."""
    assert read(**changes).experiment_id == FIELDS["experiment_id"]


def test_a_negative_figure_is_found_in_lists() -> None:
    """With its place."""
    with pytest.raises(ExportError, match=r"field energy_per_device_j\[1\]: found -1.0"):
        read(energy_per_device_j=[1000.5, -1.0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": "1.0"}, "field schema_version"),
        ({"schema_version": None}, "field schema_version"),
        ({"total_tokens": "many"}, "total_tokens"),
        ({"total_energy_j": [1]}, "total_energy_j"),
        ({"measurement_methodology": "guess"}, "measurement_methodology"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"process_results": [{"process_index": 0}]}, "process_results"),
        ({"process_results": 5}, "process_results"),
        ({"environment_snapshot": {"hardware": {"gpu": {"vram_total_mb": "big"}}}}, "vram_total_mb"),
        ({"effective_config": "text"}, "effective_config"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], said: str) -> None:
    """The error says which field, and nothing is written."""
    with pytest.raises(ExportError, match=said):
        read_predecessor(json.dumps(FIELDS | changes).encode(), what="result.json")


@pytest.mark.parametrize(
    "name",
    [
        *("experiment_id", "total_tokens", "start_time", "total_energy_j", "total_flops"),
        *("measurement_methodology", "avg_tokens_per_second", "avg_energy_per_token_j"),
    ],
)
def test_a_missing_field_is_named(name: str) -> None:
    """A file without it is another program's."""
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(ExportError, match=name):
        read_predecessor(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[]",
            "found a list of 0 items, expected a JSON object of one result, with schema_version one of .*'2.0'",
        ),
        (json.dumps([FIELDS, FIELDS]), "found a list of 2 items, .*; write each result to a file of its own"),
        ("5", "found 5, expected a JSON object of one result"),
        ("PAR1", "found a Parquet file, expected a JSON object"),
        (json.dumps([FIELDS]), "found a list of 1 item, .*; write each result to a file of its own"),
        ('[{"host": "h"}]', "found a list of 1 item, .*; results of llem need no import"),
        ('[{"segment_id": "s"}]', "found a list of 1 item, .*; results of llem need no import"),
        ('[{"weights": "w"}]', "found a list of 1 item, .*; results of llem need no import"),
        ('["host"]', "found a list of 1 item, .*; write each result to a file of its own"),
        ("experiment_id,process_index,a\nx,0,1", "found a CSV file that llem wrote"),
        ("a,experiment_id,schema_version\nx,0,1", "found a CSV file that llem wrote"),
        (
            "experiment_id,a\nprocess_index,schema_version",
            "not a result of LLenergyMeasure: found JSON is malformed",
        ),
    ],
    ids=[
        *(
            "empty list",
            "list",
            "number",
            "Parquet",
            "list of one",
            "our list",
            "our processes",
            "our models",
            "list of texts",
        ),
        *("CSV of processes", "CSV of results", "another CSV"),
    ],
)
def test_another_form_is_told_what_is_expected(text: str, said: str) -> None:
    """What it is, what a result is, and what to do with it."""
    with pytest.raises(ExportError, match=said):
        read_predecessor(text.encode())


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_right_is_refused(name: str) -> None:
    """The error names the field or the number, in a short line."""
    text, said = IMPOSSIBLE[name]
    with pytest.raises(ExportError, match=said) as refused:
        read_predecessor(text.encode(), what="odd.json")
    assert "odd.json" in str(refused.value) and len(str(refused.value)) < 500


ODD = (
    2**63 - 1,
    -(2**63),
    2**31,
    0,
    1e308,
    -1e308,
    1e-320,
    "",
    "\0",
    "x" * 70_000,
    None,
    True,
    [],
    {},
    [[]],
    {"a": {"b": []}},
    "2026-03-01",
)
PLACES = list(places(FIELDS))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(place=st.sampled_from(range(len(PLACES))), odd=st.sampled_from(range(len(ODD))))
def test_anything_anywhere_is_read_or_refused(place: int, odd: int) -> None:
    """Whatever stands in any field, the file is a result, or an error of ours says why it is none."""
    with suppress(ExportError):
        result = read_predecessor(json.dumps(changed(FIELDS, PLACES[place], ODD[odd])).encode())
        assert result.start_time <= result.end_time and (result.total_tokens or 0) >= 0


def test_the_file_of_one_process_is_a_result_of_its_own() -> None:
    """All figures are those of the process; "result" is what the errors call it."""
    found = read_predecessor(json.dumps(FIELDS["process_results"][0]).encode())
    work, compute = (FIELDS["process_results"][0][f"{part}_metrics"] for part in ("inference", "compute"))
    assert (found.total_tokens, found.total_input_tokens, found.total_output_tokens) == (
        12_345,
        11_111,
        1_234,
    )
    assert found.total_inference_time_sec == work["inference_time_sec"]
    assert found.avg_tokens_per_second == work["tokens_per_second"]
    assert found.total_flops == compute["flops_total"]
    assert (found.total_energy_j, found.avg_energy_per_token_j) == (1234.5678901234567, 0.1000055)
    assert (found.end_time - found.start_time).total_seconds() == pytest.approx(20.123456)
    assert [process.process_index for process in found.process_results] == [0]
    with pytest.raises(ExportError, match=r"^result is not a result"):
        read_predecessor(b"5")


def later(fields: dict[str, Any]) -> ExperimentResult:
    return imported(json.dumps(fields).encode(), experiment_id="new")


def test_a_later_result_has_the_figures_of_before() -> None:
    """Under their old names: counts, the hash, whether and how long it was throttled."""
    throttle = {
        "detected": True,
        "throttle_duration_sec": 2.5,
        "max_temperature_c": 81.0,
        "throttle_timestamps": [1.5, 2.5],
        "thermal": {"count": 3},
    }
    renamed = {"declared_config_hash": "d", "input_tokens": 40, "output_tokens": 2}
    left = {name: figure for name, figure in FIELDS.items() if name != "thermal_throttle"}
    found = later(left | renamed | {"schema_version": "3.0", "throttle": throttle})
    assert (found.measurement_config_hash, found.total_input_tokens, found.total_output_tokens) == (
        "d",
        40,
        2,
    )
    told = found.thermal_throttle
    assert told is not None
    assert (told.detected, told.throttle_duration_sec, told.max_temperature_c) == (True, 2.5, 81.0)
    assert told.throttle_timestamps == [1.5, 2.5]
    plain = later(left | renamed | {"schema_version": "5.0", "total_flops": 0.0})
    assert plain.thermal_throttle is None and plain.total_flops is None


@pytest.mark.parametrize(
    "version", [{"schema_version": "3.0"}, {"schema_version": "5.0"}, {"bundle_version": "2.0"}]
)
def test_a_later_result_is_told_by_other_names(version: dict[str, str]) -> None:
    """Engine, surroundings, idle power and what was read over time; of several names ours goes before."""
    left = {
        "backend",
        "backend_version",
        "timeseries",
        "environment_snapshot",
        "schema_version",
        "baseline_power_w",
    }
    left |= {"measurement_methodology", "energy_breakdown"}
    bare = {name: figure for name, figure in FIELDS.items() if name not in left} | version
    said = {"engine": "vllm", "engine_version": "0.9", "timeseries_path": "t.parquet"}
    told = later(bare | said | {"energy_breakdown": {"raw_j": 1.0, "baseline_power_w": 55.0}})
    assert (told.backend, told.backend_version, told.timeseries) == ("vllm", "0.9", "t.parquet")
    assert (told.measurement_methodology, told.baseline_power_w) == ("total", 55.0)
    both = later(
        bare | said | {"backend": "ours", "baseline_power_w": 44.0, "measurement_methodology": "steady_state"}
    )
    assert (both.backend, both.baseline_power_w, both.measurement_methodology) == (
        "ours",
        44.0,
        "steady_state",
    )
    for environment in ({"python_version": "3.12", "hardware": {}}, {"gpu": {"name": "GPU"}}):
        snapshot = later(bare | said | {"environment": environment}).environment_snapshot
        assert snapshot is not None
        if "hardware" in environment:
            assert snapshot.python_version == "3.12"
        else:
            assert "GPU" in str(snapshot.hardware)


@pytest.mark.parametrize(("failed", "energy_j"), [(True, None), (False, 0.0), ("true", 0.0), (None, 0.0)])
@pytest.mark.parametrize("version", ["2.0.0", "3.0.0"])
def test_an_energy_that_could_not_be_read_is_none(
    failed: object, energy_j: float | None, version: str
) -> None:
    """Where an old result says so; it was 0 then. FLOPs of 0 were none."""
    nothing = {"total_energy_j": 0.0, "avg_energy_per_token_j": 0.0, "total_flops": 0.0}
    told = later(FIELDS | nothing | {"schema_version": version, "energy_tracking_failed": failed})
    assert (told.total_energy_j, told.avg_energy_per_token_j, told.total_flops) == (energy_j, energy_j, None)


def test_a_process_alone_keeps_what_it_says() -> None:
    """As the experiment's."""
    warmup = {"converged": True, "iterations_completed": 3}
    said = {
        "warmup_result": warmup,
        "timeseries": "t.parquet",
        "thermal_throttle": {"detected": True},
        "energy_breakdown": {"raw_j": 5.0, "baseline_power_w": 1.0},
        "environment_snapshot": {"python_version": "3.11"},
        "backend_version": "1.2",
        "effective_config": {"batch_size": 3},
    }
    (part,) = process(**said)
    (told,) = later(FIELDS | {"process_results": [part]}).process_results
    alone = later(part)
    for name in ("extended_metrics", *said):
        assert getattr(alone, name) == getattr(told, name) is not None
    assert alone.total_tokens == told.inference_metrics.total_tokens
    assert alone.backend == told.backend == part["backend"] != "unknown"


NOT_MEASURED = {
    "energy_metrics": (
        *("gpu_energy_j", "cpu_energy_j", "ram_energy_j", "gpu_power_w", "cpu_power_w", "ram_power_w"),
        *("emissions_kg_co2", "energy_per_token_j"),
    ),
    "compute_metrics": (
        "flops_total",
        "flops_per_token",
        "flops_per_second",
        "peak_memory_mb",
        "model_memory_mb",
    ),
}


@pytest.mark.parametrize("version", ["2.0.0", "3.0.0", "3.0", "5.0"])
def test_a_zero_of_other_versions_may_be_nothing(version: str) -> None:
    """In the place of what was not measured, which no measurement finds to be 0; other figures stay."""
    (whole,) = process()
    for figure in (0, 0.0, 2.5):
        parts = {
            part: {**whole[part], **dict.fromkeys(names, figure)} for part, names in NOT_MEASURED.items()
        }
        parts["inference_metrics"] = whole["inference_metrics"] | {"input_tokens": 0}
        (told,) = later(
            FIELDS | {"schema_version": version, "process_results": process(**parts)}
        ).process_results
        for part, names in NOT_MEASURED.items():
            kept = msgspec.to_builtins(getattr(told, part))
            assert {kept.get(name) for name in names if name in kept} <= {figure or None}, part
            assert len(kept.keys() & {*names}) > 2
        assert told.inference_metrics.input_tokens == 0
