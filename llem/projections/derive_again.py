"""What the log says outlives what it means: after a change of formulas, figures are derived again from the tables of the log, in one transaction."""

import duckdb

from llem.projections import database
from llem.projections.containment import LOG_TABLES, UNUSABLE
from llem.projections.database import Tables
from llem.projections.derive.rows import DERIVED_TABLES, failing

_OF_THE_LOG = (*LOG_TABLES, "segments", "folders")
_KEPT = (*_OF_THE_LOG, "projection")
# Temporary tables of the new rows, once they no longer hide the tables that these are for.
_NEW = "new_"
_NOT_KEPT = """
SELECT 'VIEW', view_name FROM duckdb_views() WHERE NOT internal AND database_name = current_database()
UNION ALL
SELECT CASE function_type WHEN 'table_macro' THEN 'MACRO TABLE' ELSE 'MACRO' END, function_name FROM duckdb_functions()
WHERE NOT internal AND database_name = current_database()
UNION ALL
SELECT 'TABLE', table_name FROM duckdb_tables() WHERE database_name = current_database() AND table_name NOT IN (SELECT unnest(?))
"""


def derive_again(connection: duckdb.DuckDBPyConnection) -> None:
    """Replace everything but the tables of the log, whose rows stay as they are: nothing of the log is decoded.

    An experiment that cannot be derived, now or before, is forgotten: it is behind then, and its log tells the reason. Raises
    UnusableError where a table of the log has other columns than this program writes.
    """
    tables = Tables(connection)
    forgotten = _derive_beside(tables)
    with tables.transaction():
        for table in _OF_THE_LOG:
            tables.delete_experiments(table, forgotten)
        for kind, name in connection.execute(_NOT_KEPT, [list(_KEPT)]).fetchall():
            connection.execute(f'DROP {kind} "{name}"')
        connection.execute(database.DERIVED_SQL)
        for table in DERIVED_TABLES:
            connection.execute(f"INSERT INTO {table} FROM {_NEW}{table}")
        connection.execute(
            "UPDATE segments SET derived_blocks = new.derived_blocks, clock_offset_ns = new.clock_offset_ns "
            f"FROM {_NEW}segments AS new WHERE (segments.experiment_id, segments.file) = (new.experiment_id, new.file)"
        )
        database.add_comments(connection, database.DERIVED_SQL)
        connection.execute("UPDATE projection SET derived_digest = ?", [database.VERSION.derived])


def _derive_beside(tables: Tables) -> list[str]:
    """Derive all into temporary tables, which hide those of the same name meanwhile; return the experiments that are not in them."""
    connection = tables.connection
    _lay_beside(connection)
    known = connection.execute(
        "SELECT experiment_id, bool_or(verdict = ?) FROM segments GROUP BY ALL ORDER BY ALL", [UNUSABLE]
    ).fetchall()
    usable = [experiment_id for experiment_id, is_unusable in known if not is_unusable]
    forgotten = [experiment_id for experiment_id, is_unusable in known if is_unusable]
    forgotten += [experiment_id for experiment_id, _ in failing(tables, usable)]
    for table in (*DERIVED_TABLES, "segments"):
        connection.execute(f"ALTER TABLE temp.main.{table} RENAME TO {_NEW}{table}")
    return forgotten


def _lay_beside(connection: duckdb.DuckDBPyConnection) -> None:
    """Empty derived tables of this program, and the checkpoints, which say what results include. Raises UnusableError."""
    with database.in_memory() as fresh:
        fresh.execute(database.LOG_SQL)
        for table in _KEPT:
            if Tables(connection).types(table) != Tables(fresh).types(table):
                raise database.UnusableError(f"its table {table} has other columns")
    connection.execute(
        "\n".join(
            f"CREATE TEMP TABLE {definition}" for definition in database.definitions(database.DERIVED_SQL)
        )
    )
    connection.execute("CREATE TEMP TABLE segments AS FROM segments")
