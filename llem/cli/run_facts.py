"""What a person wants to know of an experiment beside its result: its name, its program, what made requests fail."""

import shlex

import duckdb
import msgspec

FAILURES = """
SELECT error, count(*) AS requests, count(*) OVER () AS kinds FROM requests
WHERE experiment_id = ? AND window_kind = 'measurement' AND error IS NOT NULL GROUP BY error ORDER BY requests DESC, error LIMIT 1
"""
EXIT_STATUS = """
SELECT max(CAST(body ->> 'exit_status' AS INTEGER)) FROM events WHERE experiment_id = ? AND type = 'process_completed'
"""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts for a result's title and remarks; None where there is nothing to say."""

    name: str | None = None
    command: str | None = None  # as a shell would read it
    exit_status: int | None = None  # of that program
    failures: str | None = None  # the commonest error of failed requests, and how many had it


def run_facts(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> RunFacts:
    """The facts of one experiment."""
    experiment = connection.execute(
        "SELECT name, command FROM experiments WHERE experiment_id = ?", [experiment_id]
    )
    name, command = experiment.fetchone() or (None, None)
    status = connection.execute(EXIT_STATUS, [experiment_id]).fetchone()
    commonest = connection.execute(FAILURES, [experiment_id]).fetchone()
    return RunFacts(
        name=name,
        command=shlex.join(command) if command else None,
        exit_status=status[0] if status and command else None,
        failures=None if commonest is None else _told(*commonest),
    )


def _told(error: str, requests: int, kinds: int) -> str:
    others = "" if kinds == 1 else f", the commonest of {kinds} errors"
    return f"{requests:,} requests failed: {error}{others}"
