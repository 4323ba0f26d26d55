"""Every event version that can be read, those that are no longer written, and the way of an old one to today's."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from llem_events.events import EVENT_TYPES, Event


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
    null_masks: dict[str, bytes] = {}  # noqa: RUF012 -- a Struct copies its defaults


def as_planes(event: SamplesAsDifferences) -> Event:
    """The same samples in today's shape; its numpy is loaded with the first of them. Raises ValueError."""
    packed: Event = importlib.import_module("llem_events.columns").as_planes(event)
    return packed


# A step takes an event of its Struct and returns one of the next version; it raises EventError or ValueError for a body that lies.
STEPS: Mapping[type[Event], Callable[[Any], Event]] = {SamplesAsDifferences: as_planes}


def _by_version(types: Iterable[type[Event]]) -> dict[tuple[str, int], type[Event]]:
    return {(event.TYPE, event.VERSION): event for event in types}


KNOWN_VERSIONS: Mapping[tuple[str, int], type[Event]] = _by_version((*STEPS, *EVENT_TYPES))


def upcast(event: Event) -> Event:
    """Today's version of an event of any known version."""
    while (step := STEPS.get(type(event))) is not None:
        event = step(event)
    return event
