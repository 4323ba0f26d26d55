"""Versions: of the JSON that users see, and of the formulas behind it."""

SCHEMA_VERSION = "2.0"
"""Names and meaning of the fields, shared with LLenergyMeasure v0.8."""

RESULTS_VERSION: int = 1
"""Raised with every change of a formula; results stored under another number are derived again."""
