"""Columns of samples: delta-coded 64-bit integers, with a mask for single missing values."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llem_events.events import SamplesTaken
from llem_events.reading import SAMPLE_COLUMNS, Reading


def pack(readings: Sequence[Reading], *, meter: str, device_uuid: str) -> SamplesTaken:
    """The event that holds `readings` of one device."""
    columns: dict[str, bytes] = {}
    null_masks: dict[str, bytes] = {}
    for name, values in zip(SAMPLE_COLUMNS, zip(*readings, strict=True), strict=True):
        missing = [value is None for value in values]
        if all(missing):
            continue
        if any(missing):
            null_masks[name] = np.packbits(missing).tobytes()
        columns[name] = _delta_encode(_fill(values))
    return SamplesTaken(
        meter=meter, device_uuid=device_uuid, count=len(readings), columns=columns, null_masks=null_masks
    )


def _fill(values: Sequence[int | None]) -> list[int]:
    """The last known value in the place of a missing one: its delta is zero, and the mask hides it."""
    last = next(value for value in values if value is not None)
    filled = []
    for value in values:
        last = last if value is None else value
        filled.append(last)
    return filled


def _delta_encode(values: Sequence[int]) -> bytes:
    return np.diff(np.asarray(values, np.int64), prepend=np.int64(0)).astype("<i8").tobytes()


def unpack(event: SamplesTaken) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]]:
    """Column name -> (values, missing); a column that was never measured is absent."""
    return {name: (_delta_decode(column), _mask(event, name)) for name, column in event.columns.items()}


def _delta_decode(column: bytes) -> npt.NDArray[np.int64]:
    return np.cumsum(np.frombuffer(column, "<i8"), dtype=np.int64)


def _mask(event: SamplesTaken, name: str) -> npt.NDArray[np.bool_] | None:
    packed = event.null_masks.get(name)
    return (
        None
        if packed is None
        else np.unpackbits(np.frombuffer(packed, np.uint8), count=event.count).astype(bool)
    )
