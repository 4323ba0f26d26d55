"""Values of a result as text and as JSON: None is empty or null, a legal zero stays, nothing is rounded."""

import math
import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(decimal_format="number")
_INT64 = 2**63
# LibreOffice reads full-width signs too.
_FORMULA = re.compile("[\\s'\"]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n\0]")


def text(value: Any) -> str:
    """The value as one cell of text; lists and maps as JSON, NULL as nothing."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple() | dict() | msgspec.Struct() | msgspec.Raw():
            return as_json(value).decode()
    return str(value)


def as_json(value: Any) -> bytes:
    """The value as JSON: exact numbers, null for NULL, "NaN" and "Infinity" as text because JSON has no number for them."""
    return _encoder.encode(json_value(value))


def json_value(value: Any) -> Any:
    """The value in JSON's own types and msgspec's: what has no type there becomes text."""
    match value:
        case None | str() | bool():
            return value
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case int() if not -_INT64 <= value < _INT64:
            return Decimal(value)
        case bytes():
            return value.hex()
        case list() | tuple():
            return [json_value(item) for item in value]
        case dict():
            return {text(key): json_value(item) for key, item in value.items()}
        case msgspec.Struct():
            return json_value(msgspec.to_builtins(value))
    return value


def neutralised(cell: str) -> str:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe (OWASP, CSV Injection)."""
    return "'" + cell if _FORMULA.match(cell) else cell
