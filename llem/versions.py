"""Versions: of the JSON that users see, of the formulas behind it, and of the tables."""

import hashlib
from pathlib import Path

from llem_events.events import SCHEMA_VERSION as EVENT_SCHEMA_VERSION

SCHEMA_VERSION = "2.0"
"""Names and meaning of a result's fields, shared with LLenergyMeasure v0.8."""

RESULTS_VERSION: int = 2
"""Raised with every change of a formula; results stored under another number are derived again."""

TablesVersion = tuple[str, int, int]


def tables_version() -> TablesVersion:
    """What the tables of a projection must have been built with: schema.sql's digest, event schema, formulas."""
    schema = Path(__file__).with_name("projections") / "schema.sql"
    return hashlib.sha256(schema.read_bytes()).hexdigest(), EVENT_SCHEMA_VERSION, RESULTS_VERSION
