"""Versions: of the JSON that users see, of the formulas behind it, and of the tables."""

import hashlib
from pathlib import Path

from llem_events import events

SCHEMA_VERSION = "2.0"
"""Names and meaning of a result's fields, shared with LLenergyMeasure v0.8."""

RESULTS_VERSION: int = 2
"""Raised with every change of a formula; results stored under another number are derived again."""

_HERE = Path(__file__).parent
_SCHEMA = (
    _HERE / "projections" / "schema.sql",
    _HERE / "results" / "figures.py",
    _HERE / "results" / "latency.py",
    Path(events.__file__),
)
TablesVersion = tuple[str, int, int]


def tables_version() -> TablesVersion:
    """What the tables of a projection must have been built with: digest of the schema, event schema, formulas."""
    digest = hashlib.sha256()
    for path in _SCHEMA:
        digest.update(path.read_bytes())
    return digest.hexdigest(), events.SCHEMA_VERSION, RESULTS_VERSION
