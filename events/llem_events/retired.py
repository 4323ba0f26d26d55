"""Event versions that are no longer written, and the pure step that turns each into the next version.

To change an event: copy its Struct to here under a name that says what its shape was, keep its `TYPE` and `VERSION`, change the Struct
in `events`, raise its `VERSION` and `SCHEMA_VERSION`, write the step, enter it below, and run
`python -m llem_events.publish_schema`. A field that is only added, with a default, needs none of this.
"""

from collections.abc import Callable, Mapping
from typing import Any

from llem_events.events import Event

# A step takes an event of its Struct and returns one of the next version; it raises EventError or ValueError for a body that lies.
STEPS: Mapping[type[Event], Callable[[Any], Event]] = {}
