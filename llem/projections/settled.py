"""Which files of the log the tables have read, looked up without loading anything that builds them."""

import duckdb

Seen = dict[str, dict[str, tuple[int, int]]]  # experiment -> file -> size and time of the last change


def applied_files(connection: duckdb.DuckDBPyConnection) -> tuple[Seen, set[str]]:
    """The files that were read, by experiment, and the experiments with one that is damaged, growing or not yet derived."""
    rows = connection.execute(
        "SELECT experiment_id, file, file_bytes, modified_ns, verdict IN ('clean', 'unclosed', 'torn') AND NOT being_written "
        "AND derived_blocks IS NOT DISTINCT FROM blocks FROM segments"
    ).fetchall()
    seen: Seen = {}
    unsettled: set[str] = set()
    for experiment_id, file, file_bytes, modified_ns, settled in rows:
        seen.setdefault(experiment_id, {})[file] = (file_bytes, modified_ns)
        if not settled:
            unsettled.add(experiment_id)
    return seen, unsettled
