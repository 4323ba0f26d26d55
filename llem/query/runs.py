"""The experiments of a store, the newest first: which are meant, and what is told of each."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from llem.errors import QueryError
from llem.query.result import QueryResult
from llem.units import NS_PER_S

COLUMNS = """experiment_id, e.status, r.valid, e.name, r.model_name, e.command, e.labels, coalesce(e.started_time, r.start_time) AS started_time,
       r.duration_sec, r.measured_sec, r.total_energy_j, r.output_tokens_per_second, r.output_tokens,
       r.tokens_per_second, r.total_tokens, r.energy_source"""
SCREEN = """experiment_id AS run,
       CASE WHEN e.status <> 'completed' THEN e.status WHEN r.valid THEN 'valid' WHEN NOT r.valid THEN 'not valid' ELSE 'not judged' END AS verdict,
       coalesce(e.name, r.model_name, array_to_string(e.command, ' '), r.engine) AS what,
       round(r.total_energy_j, 1) AS joules, r.energy_source AS source, round(coalesce(r.measured_sec, r.duration_sec), 1) AS sec,
       round(r.output_tokens_per_second, 1) AS "output tokens/s", r.output_tokens AS "output tokens"
"""
_SIZE = """(SELECT {what} FROM segments s WHERE s.experiment_id = e.experiment_id)"""
_LOG_BYTES, _SEGMENTS = _SIZE.format(what="sum(s.file_bytes)"), _SIZE.format(what="count(*)")
LONG_COLUMNS = f"{COLUMNS}, r.study_id, {_LOG_BYTES} AS log_bytes, {_SEGMENTS} AS segments"
LONG_SCREEN = f"""experiment_id AS run, strftime(coalesce(e.started_time, r.start_time), '%Y-%m-%d %H:%M') AS "started (UTC)",
       round({_LOG_BYTES} / 1e6, 3) AS "log MB",
       list_transform(map_entries(e.labels), lambda pair: pair.key || '=' || pair.value).array_to_string(' ') AS labels, e.name, {_SEGMENTS} AS segments,
       r.study_id AS study"""
RUNS = """
SELECT {columns}
FROM experiments e LEFT JOIN experiment_results r USING (experiment_id)
WHERE ($name IS NULL OR e.name GLOB $name) AND ($since_ns IS NULL OR coalesce(e.started_ns, r.start_ns) >= $since_ns)
  AND list_has_all(list_transform(map_entries(coalesce(e.labels, MAP {{}})), lambda pair: pair.key || '=' || pair.value), $labels)
ORDER BY coalesce(e.started_ns, r.start_ns) DESC NULLS LAST, experiment_id DESC
LIMIT $limit
"""
AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def select_runs(
    connection: duckdb.DuckDBPyConnection,
    *,
    columns: str = COLUMNS,
    labels: Sequence[str] = (),
    name: str | None = None,
    since_ns: int | None = None,
    limit: int | None = None,
) -> QueryResult:
    """Experiments with all of these labels, each KEY=VALUE, of this name (`*` stands for anything), started since then."""
    wanted: dict[str, Any] = {
        "labels": labels,
        "name": name,
        "since_ns": since_ns,
        "limit": limit,
    }
    selected = connection.execute(RUNS.format(columns=columns), wanted)
    described = selected.description or ()
    return QueryResult(
        columns=[column[0] for column in described],
        types=[str(column[1]) for column in described],
        rows=selected.fetchall(),
    )


def started_since_ns(written: str, *, now: datetime) -> int:
    """Nanoseconds since 1970 of a moment in ISO 8601 (UTC unless it says otherwise), or of so long ago. Raises QueryError."""
    try:
        if age := re.fullmatch(r"(\d+)([mhdw])", written):
            moment = now - timedelta(**{AGES[age[2]]: int(age[1])})
        else:
            moment = datetime.fromisoformat(written)
    except (ValueError, OverflowError):
        raise QueryError(
            "--since",
            found=repr(written),
            expected="a time such as 2026-01-31T12:00, or an age such as 90m, 12h, 3d, 2w",
        ) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp()) * NS_PER_S
