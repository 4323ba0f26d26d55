"""Whatever is shown together adds up: every figure is worked out again from the printed ones beside it."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from llem.cli.show import RunFacts, write_result
from llem.errors import QueryError
from llem.export.columns import aggregated_columns
from llem.export.files import stored_results, write_rows
from llem.export.formats import Format
from llem.export.results import RAW, write_records
from llem.projections import catch_up, open_readonly, results_for
from llem.results import ExperimentResult
from llem.store import Store
from tests.conftest import Run
from tests.recomputation.latencies import Latencies, finished_requests, into_line, into_processes
from tests.recomputation.odd_runs import import_run, write_run
from tests.recomputation.printed import Range, Rule, disagreements, machine, quotient, screen, seconds_between
from tests.recomputation.rules import (
    BATCH_ROW,
    EXPERIMENT_ROW,
    PROCESS_ROW,
    RAW_LINE,
    REQUEST_ROW,
    RESULTS_LINE,
    SCREEN,
    WINDOW_ROW,
    exact,
    exact_mean,
    exact_sum,
    raw_line,
    read,
)
from tests.recomputation.whole import whole_disagreements

# Among the few: shared devices with idle power and memory, wrapped programs, an import, pauses, index 0 missing.
FEW = (1, 4, 9, 11, 34, 68, 96, 106, 118, 126)
MANY = tuple(seed for seed in range(200) if seed not in FEW)
Line = dict[str, str]


@pytest.fixture(
    scope="module",
    params=[pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)],
)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of random experiments, one in ten of them imported."""
    folder = tmp_path_factory.mktemp("odd")
    store = Store(folder / "store").create()
    for seed in request.param:
        if seed % 10 == 9:
            import_run(store, seed, folder)
        else:
            write_run(store, seed)
    catch_up(store)
    return store


def results(store: Store) -> list[ExperimentResult]:
    """All results, as they are stored."""
    with open_readonly(store) as connection:
        return list(stored_results(connection))


def latencies_of(store: Store) -> Latencies:
    """The raw values behind the results' statistics."""
    with open_readonly(store) as connection:
        return finished_requests(connection)


def rows(store: Store, sql: str) -> list[Line]:
    """Rows of a query as CSV has them."""
    out = io.StringIO()
    with open_readonly(store) as connection:
        write_rows(out, connection, sql, kind=Format.CSV)
    return parsed(out.getvalue())


def parsed(text: str) -> list[Line]:
    """Lines of CSV text by column."""
    return list(csv.DictReader(io.StringIO(text)))


def assert_none(found: Iterator[str]) -> None:
    """No disagreement; all of them in the message."""
    texts = list(found)
    assert not texts, "\n".join(texts)


def all_used(lines: list[Line], rules: tuple[Rule, ...]) -> list[str]:
    """Targets that no line shows: such a rule would be a test that cannot fail."""
    return [rule.target for rule in rules if not any(line.get(rule.target) for line in lines)]


def test_rows_of_experiments_add_up(odd: Store) -> None:
    """experiment_results: each figure from the others in its row, missing exactly where one of those is."""
    lines = rows(odd, "FROM experiment_results")
    assert all_used(lines, EXPERIMENT_ROW) == []
    assert_none(text for line in lines for text in row_disagreements(line))


def row_disagreements(line: Line) -> Iterator[str]:
    """Of a row of experiment_results; what is imported need not show all that could follow."""
    ours = not line["labels"].count("imported_id")
    where = f"experiment_results of {line['experiment_id']}"
    yield from disagreements(where, line, EXPERIMENT_ROW, read, complete=ours and bool(line["result"]))
    if line["start_time"]:
        apart = seconds_between(line["start_time"], line["end_time"])
        if not machine(line["duration_sec"]).meets(apart):
            yield f"{where}: duration_sec is {line['duration_sec']}, by its times {float(apart.low)!r}"


def test_rows_of_the_other_tables_add_up(odd: Store) -> None:
    """Processes, windows, requests, and batches whose phases were seen in one way, each row in itself."""
    same = "energy_source IN ('counter', 'integrated') AND energy_source = prefill_source AND energy_source = decode_source"
    for table, rules in (
        ("raw_process_results", PROCESS_ROW),
        ("windows", WINDOW_ROW),
        ("timed_requests", REQUEST_ROW),
        (f"batches WHERE {same}", BATCH_ROW),
    ):
        lines = rows(odd, f"FROM {table}")
        assert all_used(lines, rules) == []
        assert_none(
            text
            for line in lines
            for text in disagreements(f"{table} of {line['experiment_id']}", line, rules, read)
        )


def test_lines_of_results_add_up(odd: Store) -> None:
    """The CSV of results, with the figures of its processes beside those of the experiment."""
    found = results(odd)
    columns = aggregated_columns(found, preset="llenergymeasure", process_breakdown=True)
    out = io.StringIO()
    write_records(out, found, columns, kind=Format.CSV)
    lines = parsed(out.getvalue())
    assert all_used(lines, RESULTS_LINE) == []
    assert_none(text for line in lines for text in line_disagreements(line))


def line_disagreements(line: Line) -> Iterator[str]:
    """Of a line of results; with the breakdown, of its processes too."""
    ours = not line["labels"].count("imported_id")
    where = f"results line of {line['experiment_id']}"
    yield from disagreements(where, line, RESULTS_LINE, read, complete=ours)
    if ours:
        sums, rules = broken_down(line)
        yield from disagreements(where, line | sums, rules, read)


def broken_down(line: Line) -> tuple[Line, list[Rule]]:
    """What follows from the processes of a line, whichever indices they have."""
    figures = ("gpu_id", "tokens", "energy_j", "tokens_per_second")
    named = {match.group(1) for name in line if (match := re.match(r"(process_\d+)_gpu_id$", name))}
    shown = [name for name in named if any(line[f"{name}_{figure}"] for figure in figures)]
    rates, tokens, energies = (
        [line[f"{name}_{figure}"] or None for name in shown]
        for figure in ("tokens_per_second", "tokens", "energy_j")
    )
    complete = len(shown) == int(line["num_processes"])
    sums = {
        "processes: rate": exact_mean(rates) if complete else "",
        "processes: tokens": exact_sum(tokens) if complete else "",
        "processes: energy": exact_sum(energies) if complete else "",
    }
    rules = [
        Rule("avg_tokens_per_second", ("processes: rate",), lambda rate: rate),
        Rule("total_tokens", ("processes: tokens",), lambda count: count),
    ]
    if line["gpu_attribution_verified"] == "true":
        rules.append(Rule("energy_raw_j", ("processes: energy",), lambda energy: energy))
    return sums, rules


def test_lines_of_processes_add_up(odd: Store) -> None:
    """The CSV of processes, sums over devices and windows in its cells included."""
    out = io.StringIO()
    processes = [process for result in results(odd) for process in result.process_results]
    write_records(out, processes, RAW, kind=Format.CSV)
    latencies = latencies_of(odd)
    lines = [raw_line(into_line(line, latencies)) for line in parsed(out.getvalue())]
    assert all_used(lines, RAW_LINE) == []
    assert_none(text for line in lines for text in raw_disagreements(line))


def raw_disagreements(line: Line) -> Iterator[str]:
    """Of a line of processes."""
    where = f"raw line of {line['experiment_id']}, process {line['process_index']}"
    yield from disagreements(where, line, RAW_LINE, read)


def test_json_adds_up(odd: Store) -> None:
    """A whole result: sums, means and percentiles of the experiment from the figures of its processes."""
    latencies = latencies_of(odd)
    texts = [msgspec.json.encode(result) for result in results(odd)]
    assert_none(text for printed in texts for text in json_disagreements(printed, latencies))


def json_disagreements(printed: bytes | str, latencies: Latencies) -> Iterator[str]:
    """Of a whole result, with the raw latencies of its requests."""
    result = json.loads(printed, parse_float=str)
    into_processes(result["process_results"], latencies)
    yield from whole_disagreements(result)


def test_screens_add_up(odd: Store) -> None:
    """`llem show`: within half a unit of the last digit shown, given the rounding of the others."""
    screens = [(shown(result), "imported_id" not in result.labels) for result in results(odd)]
    assert all_used([screen_figures(printed) for printed, _ in screens], SCREEN) == []
    assert_none(text for printed, ours in screens for text in screen_disagreements(printed, complete=ours))


def shown(result: ExperimentResult) -> str:
    """The screen of a result."""
    out = io.StringIO()
    write_result(out, result, RunFacts())
    return out.getvalue()


def screen_disagreements(text: str, *, complete: bool) -> Iterator[str]:
    """Of a screen; an imported result need not show all that could follow."""
    figures = screen_figures(text)
    title = text.partition("\n")[0]
    yield from disagreements(title, figures, SCREEN, screen_figure, complete=complete)


def screen_figures(text: str) -> Line:
    """Its rows are a name, a value and a unit, with two spaces or more between them; counts are exact."""
    cells = [re.split(r"\s{2,}", line.strip(), maxsplit=2) for line in text.splitlines()[1:]]
    figures = {row[0]: row[1] for row in cells if len(row) > 1 and row[1] != "not measured"}
    units = {row[0]: row[2] for row in cells if len(row) > 2}
    if baseline := re.search(r"baseline ([\d,.e+-]+) W", units.get("energy above idle", "")):
        figures["baseline"] = baseline.group(1)
    figures.setdefault("measured", figures["duration"])
    counts = {name: figures[name] for name in ("input tokens", "output tokens") if name in figures}
    whole = {name: exact(Fraction(text.replace(",", ""))) for name, text in counts.items()}
    return {**figures, **whole, "tokens": exact_sum(whole.values())}


def screen_figure(text: str) -> Range:
    """A figure for people, or a count, of which every digit is shown."""
    return read(text) if ".." in text else screen(text)


def test_windows_chosen_afterwards_add_up(odd: Store) -> None:
    """The same for a part of each measurement, from 2 s to 7.3 s, as JSON, on the screen and as a line."""
    parts = list(windowed(odd, 2.0, 7.3))
    assert parts
    latencies = latencies_of(odd)
    for result in parts:
        assert_none(json_disagreements(msgspec.json.encode(result), latencies))
        assert_none(screen_disagreements(shown(result), complete=True))
    out = io.StringIO()
    columns = aggregated_columns(parts, preset="llenergymeasure", process_breakdown=True)
    write_records(out, parts, columns, kind=Format.CSV)
    assert_none(text for line in parsed(out.getvalue()) for text in line_disagreements(line))


def windowed(store: Store, start_s: float, end_s: float) -> Iterator[ExperimentResult]:
    """Results of a part; of experiments that measured something in it."""
    measured = [result.experiment_id for result in results(store) if result.process_results]
    with open_readonly(store) as connection:
        for experiment_id in measured:
            with suppress(QueryError):
                yield results_for(
                    connection, experiment_id, methodology="windowed", window_s=(start_s, end_s)
                )


@pytest.mark.slow
def test_the_real_program_adds_up(odd: Store, llem: Run, tmp_path: Path) -> None:
    """The same through the program: rows by query, lines by export, screen and JSON of the newest runs."""
    place = ("--store", odd.path)
    experiment_rows = parsed(llem("query", "FROM experiment_results", "-f", "csv", *place).stdout)
    assert_none(text for line in experiment_rows for text in row_disagreements(line))
    lines = parsed(llem("export", "-", "--preset", "llenergymeasure", "--process-breakdown", *place).stdout)
    assert_none(text for line in lines for text in line_disagreements(line))
    raw = parsed(llem("export", "-", "--what", "raw", *place).stdout)
    latencies = latencies_of(odd)
    assert_none(text for line in raw for text in raw_disagreements(raw_line(into_line(line, latencies))))
    assert len(experiment_rows) == len(lines)
    listed = json.loads(llem("runs", "--limit", 500, "--json", *place).stdout, parse_float=str)
    assert len(listed) == len(lines)
    assert_none(text for row in listed for text in listed_disagreements(row))
    for line in lines[-3:]:
        ours = "imported_id" not in line["labels"]
        screen = llem("show", line["experiment_id"], *place).stdout
        assert_none(screen_disagreements(screen, complete=ours))
        printed = llem("show", line["experiment_id"], "--json", *place).stdout
        assert_none(json_disagreements(printed, latencies))


def listed_disagreements(row: dict[str, object]) -> Iterator[str]:
    """Of a run in `llem runs --json`."""
    figures = {name: str(value) for name, value in row.items() if value is not None}
    rate = quotient("tokens_per_second", "total_tokens", "measured_sec")
    yield from disagreements(f"runs: {figures['experiment_id']}", figures, [rate], read)
