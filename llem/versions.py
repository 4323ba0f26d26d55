"""Versions: of llem, of the JSON that users see, and of the formulas behind it."""

__version__ = "0.1.0"

SCHEMA_VERSION = "2.0"
"""Names and meaning of a result's fields, shared with LLenergyMeasure v0.8."""

RESULTS_VERSION: int = 2
"""For people who compare exports: raised when a figure of an old log changes. Tables are derived again without it."""
