"""The steps of retired samples, apart from their Struct: reading today's events needs no numpy."""

import numpy as np

from llem_events import columns
from llem_events.events import SamplesTaken
from llem_events.reading import SAMPLE_COLUMNS
from llem_events.retired import SamplesAsDifferences


def as_planes(event: SamplesAsDifferences) -> SamplesTaken:
    """The same samples in today's shape. Raises ValueError where the lengths do not fit."""
    if not 0 <= event.count <= SamplesTaken.MAX_COUNT:
        raise ValueError(f"samples: found {event.count}, expected at most {SamplesTaken.MAX_COUNT}")
    rows = np.zeros((event.count, len(SAMPLE_COLUMNS)), np.int64)
    missing = np.zeros(rows.shape, np.bool_)
    for place, name in enumerate(SAMPLE_COLUMNS):
        if name in event.columns:
            rows[:, place] = np.cumsum(np.frombuffer(event.columns[name], "<i8"))
        missing[:, place] = _gaps(event, name)
    gaps = missing if missing.any() else None
    return columns.encode(rows, meter=event.meter, device_uuid=event.device_uuid, missing=gaps)


def _gaps(event: SamplesAsDifferences, name: str) -> columns.Mask:
    if name not in event.columns:
        return np.ones(event.count, np.bool_)
    if name not in event.null_masks:
        return np.zeros(event.count, np.bool_)
    bits = np.frombuffer(event.null_masks[name], np.uint8)
    if len(bits) != (event.count + 7) // 8:
        raise ValueError(f"null mask: found {len(bits)} bytes for {event.count} samples")
    return np.unpackbits(bits, count=event.count).astype(np.bool_)
