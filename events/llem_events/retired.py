"""Event versions that are no longer written, and the pure step that turns each into the next version.

To change an event: copy its Struct to here under a name that says what its shape was, keep its `TYPE` and `VERSION`, change the Struct
in `events`, raise its `VERSION` and `SCHEMA_VERSION`, write the step, enter it below, and run
`python -m llem_events.publish_schema`. A field that is only added, with a default, needs none of this.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from llem_events.events import Event


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
    packed: Event = importlib.import_module("llem_events.retired_steps").as_planes(event)
    return packed


# A step takes an event of its Struct and returns one of the next version; it raises EventError or ValueError for a body that lies.
STEPS: Mapping[type[Event], Callable[[Any], Event]] = {SamplesAsDifferences: as_planes}
