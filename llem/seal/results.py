"""What the tables say of one experiment as Parquet: its results, and all that the views over samples and requests look up."""

import tempfile
from pathlib import Path

import duckdb

from llem.errors import LlemError, StoreError
from llem.projections import database
from llem.projections.projector import apply_experiments
from llem.projections.sealed import COPY_OPTIONS, OF_EXPERIMENTS, table_folder
from llem.seal.manifest import SealedResults
from llem.seal.segment import SealedFile, make_folder, publish, sha256
from llem.sql import literal
from llem.store import Store

NOT_SEALED = ("running", "damaged", "newer")


class NotSealedError(LlemError):
    """An experiment whose status does not allow it."""

    def __init__(self, experiment_id: str, status: str, problem: str | None) -> None:
        self.status = status
        super().__init__(f"experiment {experiment_id} is {status}", found=problem)


def seal_results(root: Path, store: Store, experiment_id: str, *, from_tables: bool) -> SealedResults:
    """From the store's tables as they are, or from others of this experiment alone. Raises NotSealedError, StoreError."""
    log_bytes = {name: size for name, (size, _) in store.segment_stats(experiment_id).items()}
    if from_tables:
        with database.open_readonly(store) as connection:
            return _seal(root, connection, experiment_id, log_bytes)
    with (
        tempfile.TemporaryDirectory(prefix="llem-seal-") as scratch,
        database.create(Path(scratch) / "tables.duckdb") as connection,
    ):
        # without what tables and columns mean, which nobody will ask of these
        connection.execute(database.SCHEMA_SQL)
        apply_experiments(store, connection, only=[experiment_id])
        return _seal(root, connection, experiment_id, log_bytes)


def _seal(
    root: Path, connection: duckdb.DuckDBPyConnection, experiment_id: str, log_bytes: dict[str, int]
) -> SealedResults:
    status = _status(connection, experiment_id)
    rows = _rows(connection, experiment_id)
    files = [
        sealed
        for table in OF_EXPERIMENTS
        if (sealed := _copy(root, connection, table, experiment_id, rows=rows[table]))
    ]
    return SealedResults(
        experiment_id=experiment_id,
        status=status,
        log_bytes=log_bytes,
        made_by=made_by(),
        files=files,
    )


def made_by() -> str:
    """Digests of the code that makes what is sealed of an experiment."""
    return "/".join(database.VERSION)


def _status(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> str:
    found = connection.execute(
        "SELECT status, problem FROM experiments WHERE experiment_id = ?", [experiment_id]
    ).fetchall()
    if not found:
        raise StoreError(f"experiment {experiment_id}", found="no result in the tables", hint="seal again")
    status, problem = found[0]
    if status in NOT_SEALED:
        raise NotSealedError(experiment_id, status, problem)
    return str(status)


def _rows(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> dict[str, int]:
    """How many each table has of the experiment."""
    counted = " UNION ALL ".join(
        f"SELECT {literal(table)}, count(*) FROM {table} WHERE experiment_id = $experiment_id"
        for table in OF_EXPERIMENTS
    )
    return dict(connection.execute(counted, {"experiment_id": experiment_id}).fetchall())


def _copy(
    root: Path, connection: duckdb.DuckDBPyConnection, table: str, experiment_id: str, *, rows: int
) -> SealedFile | None:
    """None where the table has no row of the experiment; a file that stood there then goes."""
    folder = table_folder(root, table, experiment_id)
    hidden, path = folder / f".{experiment_id}.tmp", folder / f"{experiment_id}.parquet"
    if not rows:
        path.unlink(missing_ok=True)
        return None
    make_folder(folder)
    chosen = f"FROM {table} WHERE experiment_id = {literal(experiment_id)}"
    connection.execute(
        f"COPY (SELECT * EXCLUDE (experiment_id) {chosen}) TO {literal(str(hidden))} ({COPY_OPTIONS})"
    )
    publish(hidden, path)
    return SealedFile(
        table=table,
        path=str(path.relative_to(root)),
        rows=rows,
        bytes=path.stat().st_size,
        sha256=sha256(path),
    )
