"""llem show, and the result of a measurement that has just ended: each figure with its unit, where it comes from, and what is doubtful about it."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, TextIO

import duckdb
import msgspec
import typer
from rich.console import Console
from rich.text import Text

from llem.cli import console
from llem.cli.calibrations import Calibration, calibrations_of, write_calibrations
from llem.cli.console import folded, on_one_line
from llem.cli.options import (
    JsonOption,
    MethodologyOption,
    RunArgument,
    StoreOption,
    WindowOption,
    chosen_part,
)
from llem.cli.table import console_for, draw, plain_table, write_table
from llem.cli.tables import tables_of
from llem.errors import LlemError
from llem.plan import LoadPlan
from llem.projections import SegmentLineage, lineage, results_for
from llem.results import DeviceEnergy, ExperimentResult, InvalidReason, least_trusted
from llem.results.energy import CPU_KINDS, GPU_KINDS, RAM_KINDS, EnergySource
from llem.results.figures import EXPERIMENT_FIGURES, Figure
from llem.results.phase_split import Estimate
from llem.results.process import ThermalThrottleInfo
from llem.store import LAST, Store
from llem.units import duration_in_words
from llem_events import LogError

FAILURES = """
SELECT error, count(*) AS requests, count(*) OVER () AS kinds FROM requests
WHERE experiment_id = ? AND window_kind = 'measurement' AND error IS NOT NULL GROUP BY error ORDER BY requests DESC, error LIMIT 1
"""
EXIT_STATUS = """
SELECT max(TRY_CAST(body ->> 'exit_status' AS BIGINT)) FROM events WHERE experiment_id = ? AND type = 'process_completed'
"""
REGIONS = """
SELECT name, regions, measured, total_sec, energy_j, mean_power_w, tokens, energy_per_token_j, measured_energy_j, reason FROM regions
WHERE experiment_id = ? ORDER BY total_sec DESC, name LIMIT ?
"""
REGIONS_SHOWN = 20
NOT_MEASURED = "not measured"
_HELD = 0.99  # of the rate; below it, requests waited here
Row = tuple[str, float | int | str | None, str]
Phase = Literal["prefill", "decode"]
_CANNOT_BE_READ = (LlemError, LogError, OSError, duckdb.Error)


class RegionFacts(msgspec.Struct, frozen=True):
    """All regions of one name."""

    name: str
    regions: int
    measured: int  # of these
    total_sec: float
    energy_j: float | None
    mean_power_w: float | None
    tokens: int | None
    energy_per_token_j: float | None
    measured_energy_j: float | None
    reason: str | None


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts for a result's title and remarks; None where there is nothing to say."""

    name: str | None = None
    command: str | None = None  # as a shell would read it
    load: str | None = None  # of a server
    exit_status: int | None = None  # of that program
    failures: str | None = None  # the commonest error of failed requests, and how many had it
    regions: Sequence[RegionFacts] = ()  # of that program, the longest first
    calibrations: Sequence[Calibration] = ()  # what it found out of sensors, where it was to


def run_facts(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> RunFacts:
    """The facts of one experiment."""
    experiment = connection.execute(
        "SELECT name, command, plan FROM experiments WHERE experiment_id = ?", [experiment_id]
    )
    name, command, plan = experiment.fetchone() or (None, None, None)
    status = connection.execute(EXIT_STATUS, [experiment_id]).fetchone()
    commonest = connection.execute(FAILURES, [experiment_id]).fetchone()
    regions = connection.execute(REGIONS, [experiment_id, REGIONS_SHOWN + 1]).fetchall()
    return RunFacts(
        name=name,
        command=shlex.join(command) if command else None,
        load=_load(plan),
        exit_status=status[0] if status and command else None,
        failures=None if commonest is None else _told(*commonest),
        regions=[RegionFacts(*row) for row in regions],
        calibrations=calibrations_of(connection, experiment_id),
    )


def _load(plan: str | None) -> str | None:
    """What was offered to a server; None without one, and where another llem wrote the plan otherwise."""
    try:
        written = msgspec.json.decode(plan or "{}", type=_ServedPlan)
    except msgspec.ValidationError:
        return None
    return written.load.offered if written.load and written.server and written.server.get("kind") else None


class _ServedPlan(msgspec.Struct, frozen=True):
    load: LoadPlan | None = None
    server: dict[str, object] | None = None


def _told(error: str, requests: int, kinds: int) -> str:
    others = "" if kinds == 1 else f", the commonest of {kinds} errors"
    return f"{console.counted(requests, 'request')} failed: {error}{others}"


def write_result(out: TextIO, result: ExperimentResult, facts: RunFacts) -> None:
    """The figures of one experiment."""
    console = console_for(out)
    console.print(Text(folded(on_one_line(_title(result, facts)), out), style="bold"), soft_wrap=True)
    table = plain_table()
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for name, value, unit in _rows(result):
        table.add_row(Text(name), Text(_text(value)), Text(unit if value is not None else ""))
    draw(console, table)
    if facts.regions:
        _draw_regions(console, facts.regions[:REGIONS_SHOWN])
    write_calibrations(out, facts.calibrations)
    for line in _remarks(result, facts):
        console.print(Text(folded(on_one_line(line), out)), soft_wrap=True)


def _draw_regions(console: Console, regions: Sequence[RegionFacts]) -> None:
    table = plain_table()
    table.add_column("region", overflow="fold")
    for head in ("times", "s", "J", "W", "tokens", "J/token"):
        table.add_column(head, justify="right")
    for region in regions:
        figures = (region.regions, region.total_sec, region.energy_j, region.mean_power_w)
        of_tokens = () if region.tokens is None else (region.tokens, region.energy_per_token_j)
        table.add_row(Text(on_one_line(region.name)), *map(Text, map(_text, (*figures, *of_tokens))))
    draw(console, table)


def _title(result: ExperimentResult, facts: RunFacts) -> str:
    """The id, the name in the plan, what was measured, and how it ended."""
    weights = " with random weights" if result.weights == "random" else ""
    measured = [facts.command or f"{result.model_name or result.backend}{weights}"]
    if facts.exit_status is not None:
        measured.append(f"exit status {facts.exit_status}")
    if result.backend not in (result.model_name or result.backend, "command"):
        measured.append(result.backend)
    if facts.load is not None:
        measured.append(facts.load)
    name = f"{facts.name}: " if facts.name else ""
    return f"{result.experiment_id}  {name}{', '.join([*measured, result.status])}"


def _rows(result: ExperimentResult) -> Iterator[Row]:
    """Every figure of the list that has a name on the screen and a place in this result."""
    for figure in EXPERIMENT_FIGURES:
        if figure.shown is not None and _has_place(figure, result):
            yield figure.shown, figure.value_of(result), _unit(figure, result)


def _has_place(figure: Figure[ExperimentResult], result: ExperimentResult) -> bool:
    """Whether its absence would tell nothing: a run without requests has no latencies to be missed."""
    if figure.name in _KINDS:
        # of devices of one kind, the energy is the total
        return 0 < len(_of_kinds(result, figure.name)) < len(_watched(result))
    match figure.name:
        case "measured_sec":
            return result.measured_sec not in (None, result.duration_sec)
        case "requests":
            return result.total_requests is not None
        case "server_idle_power_w" | "energy_above_server_idle_j":
            return result.serving is not None
        case "inter_chunk_median_ms" | "ttft_sent_median_ms":
            return _tells_more(figure.name, result)
        case "energy_per_prompt_token_estimate_j":
            return _says_something(result, "prefill")
        case "energy_per_decoded_token_estimate_j":
            return _says_something(result, "decode")
        case "power_limit_set_w" | "clocks_locked_mhz":
            return figure.value_of(result) is not None
        case "throttle_sec":
            return result.thermal_throttle is not None and bool(result.thermal_throttle.detected)
    return result.latency_stats is not None or not figure.name.endswith("_median_ms")


def _tells_more(name: str, result: ExperimentResult) -> bool:
    """Whether a latency is another than the one that is shown beside it: chunks that are not tokens, requests that waited to be sent."""
    latencies = result.latency_stats
    if result.serving is None or latencies is None:
        return False
    if name == "inter_chunk_median_ms":
        return latencies.inter_chunk_samples != latencies.itl_samples
    return result.serving.rate_held is not None and result.serving.rate_held < _HELD


def _watched(result: ExperimentResult) -> list[DeviceEnergy]:
    """Every device of every process and meter."""
    return [device for process in result.process_results for device in process.every_device]


def _of_kinds(result: ExperimentResult, name: str) -> list[DeviceEnergy]:
    """The devices whose energy a figure is."""
    return [device for device in _watched(result) if device.kind in _KINDS[name]]


def _unit(figure: Figure[ExperimentResult], result: ExperimentResult) -> str:
    """The unit, with what belongs beside the figure."""
    if note := _NOTES.get(figure.name):
        return note(result)
    if figure.name in _KINDS:
        return _joules(least_trusted([device.energy_source for device in _of_kinds(result, figure.name)]))
    if figure.name.endswith("_median_ms"):
        return _percentiles(figure.name.removesuffix("_median_ms"), result)
    return _joules(result.energy_source) if figure.unit == "J" else figure.unit


def _joules(source: EnergySource | None) -> str:
    return f"J, {source}" if source else "J"


def _percentiles(series: str, result: ExperimentResult) -> str:
    p95, p99 = (getattr(result.latency_stats, f"{series}_{rank}_ms") for rank in ("p95", "p99"))
    return f"ms median, {_text(p95)} p95, {_text(p99)} p99"


def _failed(result: ExperimentResult) -> str:
    return "" if result.failed_requests is None else f"({result.failed_requests:,} failed)"


def _above_idle(result: ExperimentResult) -> str:
    return f"{_joules(result.energy_source)}, baseline {_text(result.baseline_power_w)} W{_age(result)}"


def _age(result: ExperimentResult) -> str:
    breakdown = result.energy_breakdown
    if breakdown is None or breakdown.baseline_cache_age_sec is None:
        return ""
    return f" of an earlier run, {_text(breakdown.baseline_cache_age_sec)} s old"


def _says_something(result: ExperimentResult, phase: Phase) -> bool:
    """Whether a sensor saw the energy that is split, and the part is known to be more than nothing."""
    estimate: Estimate | None = getattr(result.phases, phase, None)
    if estimate is None or result.energy_source == "estimated":
        return False
    return estimate.energy_j > estimate.within_j


def _of_phase(phase: Phase) -> Callable[[ExperimentResult], str]:
    def note(result: ExperimentResult) -> str:
        estimate: Estimate | None = getattr(result.phases, phase, None)
        within_j = estimate.per_token_within_j if estimate else None
        return f"J above idle, an estimate, within {_text(within_j)} J"

    return note


def _throttled_by(result: ExperimentResult) -> str:
    """For how long, and by which of NVML's reasons."""
    throttle = result.thermal_throttle or ThermalThrottleInfo()
    reasons = {
        "software thermal slowdown": throttle.sw_thermal,
        "hardware thermal slowdown": throttle.hw_thermal,
        "hardware power brake": throttle.hw_power,
        "software power cap": throttle.power and not throttle.hw_power,
    }
    named = ", ".join(reason for reason, is_so in reasons.items() if is_so) or "hardware slowdown"
    return f"s, by {named}"


def _share_of_peak(result: ExperimentResult) -> str:
    share = result.model_flops_utilisation
    return "FLOP" if share is None else f"FLOP, {share:.1%} of the peak"


_KINDS = {"energy_gpu_j": GPU_KINDS, "energy_cpu_j": CPU_KINDS, "energy_dram_j": RAM_KINDS}
_NOTES: dict[str, Callable[[ExperimentResult], str]] = {
    "measured_sec": lambda _: "s, without the pauses",
    "requests": _failed,
    "output_tokens_per_second": lambda _: "",
    "tokens_per_second": lambda _: "input and output",
    "energy_adjusted_j": _above_idle,
    "energy_per_prompt_token_estimate_j": _of_phase("prefill"),
    "energy_per_decoded_token_estimate_j": _of_phase("decode"),
    "throttle_sec": _throttled_by,
    "total_flops": _share_of_peak,
}


def _remarks(result: ExperimentResult, facts: RunFacts) -> Iterator[str]:
    verdict = {True: "valid", False: "not valid", None: "not judged"}[result.valid]
    yield f"verdict: {verdict}"
    joining = result.aggregation.warnings if result.aggregation else []
    warnings = list(dict.fromkeys([*result.measurement_warnings, *joining]))
    for reason in result.invalid_reasons:
        details = _details(reason, result, warnings)
        warnings = [warning for warning in warnings if warning not in details]
        yield "  " + ": ".join([reason.text, *details.values()])
    if facts.failures:
        yield facts.failures
    yield from _calibrated(result)
    for region in facts.regions[:REGIONS_SHOWN]:
        if region.measured < region.regions:
            yield _unmeasured(region)
    if len(facts.regions) > REGIONS_SHOWN:
        yield f"more than {REGIONS_SHOWN} regions; `llem query regions` shows all"
    for warning in warnings:
        yield f"warning: {warning}"


def _calibrated(result: ExperimentResult) -> Iterator[str]:
    """Which calibration the figures of a device rely on."""
    for device in {device.key: device for device in _watched(result)}.values():
        if device.calibrated_by is not None and device.calibration_age_sec is not None:
            age = duration_in_words(device.calibration_age_sec)
            yield f"power sensor of {device.uuid} as calibrated in {device.calibrated_by}, {age} before"


def _unmeasured(region: RegionFacts) -> str:
    """How much is known of a region that is too short at times, and why no more."""
    known = f", together {_text(region.measured_energy_j)} J; others none" if region.measured else ""
    return f"region {region.name}: {region.measured:,} of {region.regions:,} have an energy{known}: {region.reason}"


def _details(reason: InvalidReason, result: ExperimentResult, warnings: Sequence[str]) -> dict[str, str]:
    """Warnings that say no more than the reason does, and which processes it means."""
    said = f"incomplete experiment {result.experiment_id}: "
    if reason.code != "incomplete":
        return {}
    return {warning: warning.removeprefix(said) for warning in warnings if warning.startswith(said)}


def _text(value: float | int | str | None) -> str:
    """Six digits of a figure, and all before the point: enough to recompute one from the others beside it."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, float):
        rounded = f"{value:,.6g}"
        return f"{value:,.0f}" if "e" in rounded and 1e5 < abs(value) < 1e9 else rounded
    return f"{value:,}" if isinstance(value, int) else value


def show(
    run: RunArgument = LAST,
    methodology: MethodologyOption = None,
    window: WindowOption = None,
    events: Annotated[
        bool, typer.Option("--events", help="The segments, blocks and events it came from.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Use what can be read of a damaged log.")
    ] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show one experiment's result, or the events it came from."""
    part, seconds = chosen_part(methodology, window)
    place = Store.locate(store)
    experiment_id = place.resolve(run)
    with tables_of(place, salvage=salvage, only=[experiment_id]) as connection:
        if events:
            _write_lineage(lineage(connection, experiment_id), json=json)
        else:
            result = results_for(connection, experiment_id, methodology=part.value, window_s=seconds)
            write(sys.stdout, result, run_facts(connection, experiment_id), json=json)


def write(out: TextIO, result: ExperimentResult, facts: RunFacts, *, json: bool) -> None:
    """The result, as JSON or for people."""
    if json:
        console.write_line(out, msgspec.json.encode(result).decode())
    else:
        write_result(out, result, facts)
    out.flush()


def _write_lineage(segments: Sequence[SegmentLineage], *, json: bool) -> None:
    if json:
        console.say(msgspec.json.encode(segments).decode())
        return
    columns = ("file", "verdict", "blocks", "events", "samples", "requests", "digest of the last block")
    rows = [
        (
            segment.file,
            segment.verdict,
            _range(segment.blocks),
            _range(segment.events),
            segment.samples,
            segment.requests,
            segment.digest,
        )
        for segment in segments
    ]
    write_table(sys.stdout, columns, rows, instead="--json")


def _range(numbers: tuple[int, int] | None) -> str:
    return "none" if numbers is None else f"{numbers[0]} to {numbers[1]}"


def new_result(store: Store, experiment_id: str) -> tuple[ExperimentResult, RunFacts] | None:
    """None, with a line that says why, where the log gives none; what was measured is safe all the same."""
    try:
        with tables_of(store, only=[experiment_id]) as connection:
            return results_for(connection, experiment_id), run_facts(connection, experiment_id)
    except _CANNOT_BE_READ as error:
        console.complain(f"no result of {experiment_id} can be shown now: {error}")
        console.note("llem: what was measured is in the log; `llem show` derives it again")
        return None
