"""What an exported file is: its digest, the runs and columns in it, and the program whose formulas made them."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from llem.export import target
from llem.export.files import Destination, Wanted, What
from llem.projections.tables_version import tables_version
from llem.versions import RESULTS_VERSION, __version__

_ALL_IDS = "SELECT experiment_id FROM experiments ORDER BY ALL"
_COLUMNS = "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = $table ORDER BY column_index"
_VIEWS = {What.SAMPLES: "timed_samples", What.REQUESTS: "timed_requests"}


def manifest_path(path: Path) -> Path:
    """The file beside an exported one."""
    return path.with_name(f"{path.name}.manifest.json")


def write_manifest(connection: duckdb.DuckDBPyConnection, wanted: Wanted, written: Destination) -> None:
    """Write it beside the file that was written. Raises ExportError."""
    told = {
        "file": written.path.name,
        "format": written.kind.value,
        **_digest(written.path),
        **_content(wanted),
        "runs": wanted.experiment_ids or [run for (run,) in connection.execute(_ALL_IDS).fetchall()],
        "columns": _columns(connection, wanted),
        "llem_version": __version__,
        "results_version": RESULTS_VERSION,
        "tables_version": tables_version()._asdict(),
        "written_time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with target.text_file(manifest_path(written.path), force=written.force) as out:
        out.write(msgspec.json.format(msgspec.json.encode(told)).decode() + "\n")


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _content(wanted: Wanted) -> dict[str, Any]:
    if wanted.table is not None:
        return {"table": wanted.table}
    return {"what": wanted.what.value, "methodology": wanted.methodology, "window_sec": wanted.window}


def _columns(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> list[dict[str, Any]] | None:
    """Those of a table or view, with unit and meaning; None of results, whose figures docs/figures.md lists."""
    table = wanted.table or _VIEWS.get(wanted.what)
    if table is None:
        return None
    found = connection.execute(_COLUMNS, {"table": table}).fetchall()
    return [{"name": name, "type": kind, "meaning": comment} for name, kind, comment in found]
