"""Groups of runs with what the tables say of each run, and runs of two groups as pairs of one block."""

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import duckdb

from llem.errors import QueryError
from llem.projections import footprint
from llem.results.figures import Figure
from llem.sql import rows_by_name

OF_A_SITE = {figure.name: figure for figure in footprint.FIGURES}
BLOCK = "block"  # the label by which runs that are of no study are compared in pairs
_RUNS = """
SELECT e.experiment_id, e.status, (SELECT any_value(body ->> 'failure') FROM events v
        WHERE v.experiment_id = e.experiment_id AND v.type = 'experiment_completed') AS failure, coalesce(e.labels, MAP {{}}) AS labels, e.plan, array_to_string(e.command, ' ') AS command,
       r.model_name, r.batch_means_cv, r.batch_means_lag1, r.valid, r.invalid_reasons, r.warnings, r.start_ns, r.energy_source, r.energy_uncertainty_j / r.total_energy_j AS energy_bound,
       e.llem_version, r.engine, r.engine_version, r.gpu_name, r.driver_version, r.cuda_version,
       (SELECT string_agg(DISTINCT host, ', ' ORDER BY host) FROM processes p WHERE p.experiment_id = e.experiment_id) AS host,
       (SELECT string_agg(DISTINCT prompt_set_sha256, ', ' ORDER BY prompt_set_sha256) FROM processes p WHERE p.experiment_id = e.experiment_id) AS prompts,
       (SELECT any_value(body -> 'study') FROM events v
        WHERE v.experiment_id = e.experiment_id AND v.type = 'experiment_started') AS study,
       {{'requests': r.requests, 'tokens': r.total_tokens, 'input_tokens': r.input_tokens, 'output_tokens': r.output_tokens, 'duration_sec': r.duration_sec, 'energy_j': r.total_energy_j,
         'idle_power_w': coalesce(r.server_idle_power_w, r.baseline_power_w)}} AS totals,
       {figures}
FROM experiments e LEFT JOIN experiment_results r USING (experiment_id) {joined}
WHERE list_contains($ids, e.experiment_id)
"""

Run = dict[str, Any]  # a row of the tables, by column


class Group(NamedTuple):
    """Runs that count as one."""

    name: str
    runs: list[Run]
    left_out: list[Run]  # failed, or not measured to their end

    def values(self, column: str) -> list[Any]:
        """Of every run."""
        return [run[column] for run in self.runs]


def rows_of(
    connection: duckdb.DuckDBPyConnection, ids: Sequence[str], figures: Sequence[Figure[Any]]
) -> list[Run]:
    """The experiments in the order of `ids`."""
    columns = [
        f"{'f' if figure.name in OF_A_SITE else 'r'}.{figure.name} AS {figure.name}" for figure in figures
    ]
    joined = ""
    if any(figure.name in OF_A_SITE for figure in figures):
        columns.append("f.reason AS site_reason")
        joined = "LEFT JOIN footprint() f USING (experiment_id)"
    sql = _RUNS.format(figures=", ".join(columns), joined=joined)
    found = rows_by_name(connection.execute(sql, {"ids": list(ids)}))
    rows = {row["experiment_id"]: row for row in found}
    return [rows[run] for run in ids if run in rows]


def group_of(name: str, runs: Sequence[Run], *, valid_only: bool) -> Group:
    """The runs that were measured to their end. Raises QueryError where there is none."""
    complete = [run for run in runs if run["status"] == "completed" and run["failure"] is None]
    kept = [run for run in complete if run["valid"] or not valid_only]
    if not kept:
        found = "no valid run" if complete else "no completed run"
        raise QueryError(f"group {name}", found=found, hint="`llem runs` lists them")
    return Group(name, kept, [run for run in runs if run not in complete])


def paired(reference: Group, group: Group) -> list[tuple[Run, Run]] | None:
    """Runs of the same block, where every run of both has one of its own; None where they cannot be paired."""
    varied = _varied(reference, group)
    blocks = [{_block(run, varied): run for run in each.runs} for each in (reference, group)]
    if any(
        None in each or len(each) < len(side.runs)
        for each, side in zip(blocks, (reference, group), strict=True)
    ):
        return None
    first, second = blocks
    return [(first[block], second[block]) for block in first if block in second] or None


def _varied(reference: Group, group: Group) -> set[str]:
    """The keys of a study's cells that do not have the same values in both groups."""
    cells = [[_cell(run) for run in each.runs] for each in (reference, group)]
    keys = {key for members in cells for cell in members for key in cell}
    first, second = (
        {key: {json.dumps(cell.get(key)) for cell in members} for key in keys} for members in cells
    )
    return {key for key in keys if first[key] != second[key]}


def _cell(run: Run) -> dict[str, Any]:
    return dict(json.loads(run["study"])["cell"]) if run["study"] else {}


def _block(run: Run, varied: Collection[str]) -> str | None:
    """The block of its study and what else of its cell is alike in both groups; of no study, its label."""
    if run["study"] is None:
        label: str | None = run["labels"].get(BLOCK)
        return label
    study = json.loads(run["study"])
    alike = {key: value for key, value in study["cell"].items() if key not in varied}
    return json.dumps([study["study_id"], study.get("block", 0), alike], sort_keys=True)
