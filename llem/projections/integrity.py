"""Whether the tables hold all rows that their checkpoints count.

DuckDB has opened a damaged write-ahead log without an error and with half of the rows missing, so after a crash they are counted.
"""

import duckdb

_MISSING = """
SELECT count(*) FROM segments s
LEFT JOIN (SELECT experiment_id, segment_id, count(*) AS found FROM samples GROUP BY ALL) a USING (experiment_id, segment_id)
LEFT JOIN (SELECT experiment_id, segment_id, count(*) AS found FROM requests GROUP BY ALL) b USING (experiment_id, segment_id)
WHERE (s.samples <> coalesce(a.found, 0) OR s.requests <> coalesce(b.found, 0))
  AND s.experiment_id NOT IN (SELECT experiment_id FROM experiments WHERE status IN ('damaged', 'newer'))
  AND s.derived_blocks = s.blocks
"""
_UNDERIVED = """
SELECT count(*) FROM (SELECT DISTINCT experiment_id FROM segments WHERE derived_blocks IS NOT NULL)
FULL JOIN experiments USING (experiment_id) FULL JOIN experiment_results r USING (experiment_id)
WHERE experiments.status IS NULL OR r.status IS NULL
"""


def is_whole(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether every applied segment has its samples and requests, and every derived experiment its results."""
    return not any(connection.execute(query).fetchall()[0][0] for query in (_MISSING, _UNDERIVED))
