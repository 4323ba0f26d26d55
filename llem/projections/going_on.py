"""Large experiments that go on: their results are derived again when the log has grown by a tenth, not for every query."""

from collections.abc import Sequence

import duckdb
import msgspec

LARGE_BYTES = 2**24  # of the log: deriving takes longer than everything else that a query waits for
DERIVED_SHARE = 0.9
_GOING_ON = """
SELECT experiment_id, sum(derived_blocks)::BIGINT AS derived_blocks, sum(blocks)::BIGINT AS blocks FROM segments
WHERE experiment_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY experiment_id
HAVING bool_and(being_written) AND count(derived_blocks) = count(*)
   AND sum(applied_bytes) >= ? AND sum(derived_blocks) >= ? * sum(blocks)
ORDER BY experiment_id
"""


class GoingOn(msgspec.Struct, frozen=True):
    """An experiment whose processes all write, and how much of its log its results include."""

    experiment_id: str
    derived_blocks: int
    blocks: int

    def __str__(self) -> str:
        return (
            f"{self.experiment_id} goes on: its figures include {self.derived_blocks} of {self.blocks} blocks"
        )


def going_on(connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str]) -> list[GoingOn]:
    """Those of the experiments whose results can wait."""
    values = [list(experiment_ids), LARGE_BYTES, DERIVED_SHARE]
    return [GoingOn(*row) for row in connection.execute(_GOING_ON, values).fetchall()]
