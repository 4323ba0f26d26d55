"""What the log says outlives what it means: after a change of formulas, figures are derived again from the tables of the log, beside those that they replace."""

import duckdb

from llem.projections import database
from llem.projections.containment import LOG_TABLES, NEW, UNUSABLE
from llem.projections.database import Tables
from llem.projections.derive.rows import DERIVED_TABLES, failing
from llem.sql import identifier

_OF_THE_LOG = (*LOG_TABLES, "segments", "folders")
_KEPT = (*_OF_THE_LOG, "projection")
_EXPECTED = "expected_"
_NOT_KEPT = """
SELECT 'VIEW', schema_name, view_name, comment IS NOT NULL FROM duckdb_views() WHERE NOT internal AND database_name = current_database()
UNION ALL
SELECT DISTINCT CASE function_type WHEN 'table_macro' THEN 'MACRO TABLE' ELSE 'MACRO' END, schema_name, function_name, comment IS NOT NULL
FROM duckdb_functions() WHERE NOT internal AND database_name = current_database()
UNION ALL
SELECT 'TABLE', schema_name, table_name, false FROM duckdb_tables()
WHERE database_name = current_database() AND (schema_name <> 'main' OR table_name NOT IN (SELECT unnest(?)))
"""


def derive_again(connection: duckdb.DuckDBPyConnection) -> None:
    """Replace everything but the tables of the log, whose rows stay as they are: nothing of the log is decoded.

    The new tables are filled beside the old ones, some experiments in a transaction, and take their names in one, so that a crash loses nothing and many
    experiments need no more memory than few. An experiment that cannot be derived, now or before, is forgotten: it is behind then, and its log tells the reason. Raises
    UnusableError where a table of the log has other columns than this program writes.
    """
    tables = Tables(connection)
    # To hand statements on so few rows to other threads takes longer than what these then do.
    connection.execute("SET threads = 1")
    _check_columns(tables)
    definitions, others = database.split_tables(database.DERIVED_SQL)
    for definition in definitions:
        connection.execute(f"CREATE OR REPLACE TABLE {NEW}{definition}")
    forgotten = _derive_beside(connection)
    with tables.transaction():
        for table in _OF_THE_LOG:
            tables.delete_experiments(table, forgotten)
        replacing = [f"{NEW}{table}" for table in DERIVED_TABLES]
        found = connection.execute(_NOT_KEPT, [[*_KEPT, *replacing]]).fetchall()
        staying = _views_and_macros_as_before(connection, {name for _, _, name, is_told in found if is_told})
        for kind, schema, name, is_told in found:
            if not (is_told and name in staying):
                connection.execute(f"DROP {kind} {identifier(schema)}.{identifier(name)}")
        for table in DERIVED_TABLES:
            connection.execute(f"ALTER TABLE {NEW}{table} RENAME TO {table}")
        connection.execute(
            "UPDATE segments SET derived_blocks = new.derived_blocks, clock_offset_ns = new.clock_offset_ns "
            f"FROM {NEW}segments AS new WHERE (segments.experiment_id, segments.file) = (new.experiment_id, new.file)"
        )
        if staying:
            database.add_comments(connection, "\n".join(f"CREATE TABLE {table}" for table in definitions))
        else:
            connection.execute(others)
            database.add_comments(connection, database.SCHEMA_SQL)
        connection.execute(
            "UPDATE projection SET derived_digest = ?, definitions_digest = ?",
            [database.VERSION.derived, database.DEFINITIONS],
        )


def _views_and_macros_as_before(connection: duckdb.DuckDBPyConnection, told: set[str]) -> set[str]:
    """Names of those that stay: all, where a formula changed and no definition, or none.

    What they are is `told` in comments: none is lost, then, and none is another's, which has no comment.
    """
    before = connection.execute("SELECT definitions_digest FROM projection").fetchall()
    ours = database.views_and_macros(database.DERIVED_SQL)
    return ours if before == [(database.DEFINITIONS,)] and told == ours else set()


def _check_columns(tables: Tables) -> None:
    for definition in database.split_tables(database.LOG_SQL)[0]:
        tables.connection.execute(f"CREATE TEMP TABLE {_EXPECTED}{definition}")
    expected = Tables(tables.connection, prefix=_EXPECTED)
    for table in _KEPT:
        if tables.types(table) != expected.types(table):
            raise database.UnusableError(f"its table {table} has other columns")


def _derive_beside(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Fill the new tables, some experiments in a transaction, and return the experiments that are not in them."""
    # What the results include is said in a copy of the checkpoints, which hides them meanwhile.
    connection.execute("CREATE TEMP TABLE segments AS FROM segments")
    known = connection.execute(
        "SELECT experiment_id, bool_or(verdict = ?) FROM segments GROUP BY ALL ORDER BY ALL", [UNUSABLE]
    ).fetchall()
    usable = [experiment_id for experiment_id, is_unusable in known if not is_unusable]
    forgotten = [experiment_id for experiment_id, is_unusable in known if is_unusable]
    forgotten += [experiment_id for experiment_id, _ in failing(Tables(connection, prefix=NEW), usable)]
    connection.execute(f"ALTER TABLE temp.main.segments RENAME TO {NEW}segments")
    return forgotten
