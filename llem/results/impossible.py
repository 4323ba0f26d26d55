"""What cannot be right in a result that another program wrote: refused by name before any of it is believed."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from llem.errors import ExportError
from llem.results.experiment import ExperimentResult

Fields = dict[str, Any]
INT64 = range(-(2**63), 2**63)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
# Clocks of two machines differ, but not by more than this.
LATEST_AHEAD = timedelta(days=1)
MAX_DEPTH = 64
_NOT_FIGURES = frozenset(
    {"effective_config", "environment_snapshot", "labels", "value", "threshold", "gpu_id", "index"}
)
_MAY_BE_NEGATIVE = ("adjusted", "temperature", "drift")


def strict_json(document: bytes) -> Any:
    """The document, where it has one meaning only: no key twice, no NaN, no number that 64 bits cannot hold. Raises ValueError."""
    try:
        msgspec.json.decode(document)  # as it will be read from the log: UTF-8, and no half characters
        content = json.loads(
            document,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_no_number,
        )
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    _check_depth(content)
    return content


def _check_depth(document: Any) -> None:
    """What is nested deeper than this is no result, and more than who walks through it can bear."""
    level: list[Any] = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)
        raise ValueError(f"field {_short(twice)} stands there twice")
    return fields


def _integer(digits: str) -> int:
    if len(digits) > len(str(INT64.start)) or int(digits) not in INT64:
        raise ValueError(f"integer {_short(digits)} does not fit into 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"number {_short(digits)} does not fit into 64 bits")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}... ({len(text)} characters)"


def check_possible(result: ExperimentResult, *, what: str) -> None:
    """Raises ExportError, which names the field, for times, counts or figures that no measurement can have."""
    _check_span(result.start_time, result.end_time, what=what)
    for place, process in enumerate(result.process_results):
        times = process.timestamps
        _check_span(times.start, times.end, what=f"{what}: process_results[{place}].timestamps")
    indices = [process.process_index for process in result.process_results]
    if len(set(indices)) < len(indices):
        raise ExportError(f"{what}: process_index", found=sorted(indices), expected="each once")
    for field, number in _negative(msgspec.to_builtins(result), ""):
        raise ExportError(f"{what}: field {field}", found=number, expected="0 or more")


def _check_span(start: datetime, end: datetime, *, what: str) -> None:
    latest = datetime.now(UTC) + LATEST_AHEAD
    for name, moment in (("start", start), ("end", end)):
        if not EARLIEST <= moment <= latest:
            raise ExportError(
                f"{what}: {name} time",
                found=moment.isoformat(),
                expected=f"between {EARLIEST:%Y-%m-%d} and now",
            )
    if end < start:
        raise ExportError(
            f"{what}: end time", found=end.isoformat(), expected=f"not before {start.isoformat()}"
        )


def _negative(part: Any, place: str) -> Iterator[tuple[str, int | float]]:
    match part:
        case bool():
            return
        case int() | float():
            if part < 0:
                yield place, part
        case dict():
            for name, item in part.items():
                if name not in _NOT_FIGURES and not any(word in name for word in _MAY_BE_NEGATIVE):
                    yield from _negative(item, f"{place}.{name}".lstrip("."))
        case list() | tuple():
            for index, item in enumerate(part):
                yield from _negative(item, f"{place}[{index}]")
