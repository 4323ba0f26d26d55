"""Parameters of a query from the command line: name=value, typed by how the value is written."""

import re
from collections.abc import Sequence

from llem.errors import QueryError
from llem.query import messages
from llem.query.process import Parameter

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_MAX_DIGITS = 40
_WORDS: dict[str, Parameter] = {"true": True, "false": False, "null": None}


def parse_parameters(options: Sequence[str]) -> dict[str, Parameter]:
    """name=value pairs: 5 is a number, 1e3 too, true a truth value, null NULL, '5' or anything else text."""
    parameters: dict[str, Parameter] = {}
    for option in options:
        name, equals, written = option.partition("=")
        if not equals or not name.isidentifier():
            raise QueryError("parameter", found=repr(option), expected="name=value")
        parameters[name] = _typed(written)
    return parameters


def _typed(written: str) -> Parameter:
    if written.lower() in _WORDS:
        return _WORDS[written.lower()]
    if _INTEGER.fullmatch(written):
        return _whole(written)
    if _FLOAT.fullmatch(written):
        return float(written)
    quoted = len(written) > 1 and written[0] == written[-1] and written[0] in "'\""
    return written[1:-1] if quoted else written


def _whole(written: str) -> int:
    # no longer than can be counted: Python refuses to read thousands of digits
    if len(written) > _MAX_DIGITS or not messages.SMALLEST <= int(written) <= messages.LARGEST:
        raise QueryError(
            "parameter",
            found=written[:_MAX_DIGITS],
            expected="a whole number of 64 bits",
            hint="give a larger one as a text in quotes, and cast it in the SQL: $name::HUGEINT",
        )
    return int(written)
