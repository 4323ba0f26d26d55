"""The steps of retired samples, apart from their Struct: reading today's events needs no numpy."""

import numpy as np

from llem_events import columns
from llem_events.events import SamplesTaken
from llem_events.reading import SAMPLE_COLUMNS
from llem_events.retired import SamplesAsDifferences


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
