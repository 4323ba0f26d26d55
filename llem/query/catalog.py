"""What there is to ask: every table and view with its columns, types, units and meaning."""

CATALOG = """
SELECT table_name AS "table", column_name AS "column",
       regexp_extract(comment, '^\\[([^]]*)\\]', 1) AS unit, regexp_replace(comment, '^\\[[^]]*\\] *', '') AS meaning, data_type AS type
FROM duckdb_columns() WHERE NOT internal ORDER BY table_oid, column_index
"""
