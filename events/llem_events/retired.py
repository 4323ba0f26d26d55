"""Event versions that are no longer written, and the pure step that turns each into the next version.

To change an event: copy its Struct to here under a name that says what its shape was, keep its `TYPE` and `VERSION`, change the Struct
in `events`, raise its `VERSION` and `SCHEMA_VERSION`, write the step, enter it below, and run
`python -m llem_events.publish_schema`. A field that is only added, with a default, needs none of this.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from llem_events import columns
from llem_events.events import Event, SamplesTaken
from llem_events.reading import SAMPLE_COLUMNS


class SamplesAsDifferences(Event, frozen=True, kw_only=True):
    """Samples of one device as a map from column to `count` signed 64-bit little-endian differences, the first from zero.

    A column that was never measured is absent; `null_masks` marks single missing values, one bit per sample,
    most significant bit first. Eight bytes for each number made a second's decompression cost more than its reading.
    """

    TYPE: ClassVar[str] = "samples_taken"
    meter: str
    device_uuid: str
    count: int
    columns: dict[str, bytes]
    null_masks: dict[str, bytes] = {}  # noqa: RUF012 - a Struct copies its defaults


def pack_in_few_bits(event: SamplesAsDifferences) -> SamplesTaken:
    """The same samples in today's shape. Raises ValueError where the lengths do not fit."""
    if not 0 <= event.count <= SamplesTaken.MAX_COUNT:
        raise ValueError(f"samples: found {event.count}, expected at most {SamplesTaken.MAX_COUNT}")
    matrix = np.zeros((len(SAMPLE_COLUMNS), event.count), np.int64)
    missing = {}
    for row, name in enumerate(SAMPLE_COLUMNS):
        if name in event.columns:
            matrix[row] = np.cumsum(np.frombuffer(event.columns[name], "<i8"))
        if name not in event.columns or name in event.null_masks:
            missing[row] = _mask(event, name)
    return columns.encode(matrix, missing, meter=event.meter, device_uuid=event.device_uuid)


def _mask(event: SamplesAsDifferences, name: str) -> columns.Mask:
    if name not in event.columns:
        return np.ones(event.count, np.bool_)
    bits = np.frombuffer(event.null_masks[name], np.uint8)
    if len(bits) != (event.count + 7) // 8:
        raise ValueError(f"null mask: found {len(bits)} bytes for {event.count} samples")
    return np.unpackbits(bits, count=event.count).astype(np.bool_)


# A step takes an event of its Struct and returns one of the next version; it raises EventError or ValueError for a body that lies.
STEPS: Mapping[type[Event], Callable[[Any], Event]] = {SamplesAsDifferences: pack_in_few_bits}
