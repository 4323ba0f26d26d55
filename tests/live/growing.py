"""An experiment with chosen figures whose log grows when a test says so."""

from collections.abc import Sequence
from typing import Any

from llem.store import Store
from llem_events import SegmentWriter
from tests.world import Dated, at, header_of, path_of, supervisor_events


class Growing:
    """A run that is written up to any second of its clock, and stays open."""

    def __init__(
        self, store: Store, *, worker: Sequence[Dated], sampler: Sequence[Dated], **header_fields: Any
    ) -> None:
        roles = (("supervisor", None, supervisor_events()), ("worker", 0, worker), ("sampler", 0, sampler))
        self._waiting: list[tuple[SegmentWriter, list[Dated]]] = []
        for role, index, events in roles:
            header = header_of(role, index=index, **header_fields)
            writer = SegmentWriter(path_of(store, header), header, sync="close")
            self._waiting.append((writer, list(events)))

    def until(self, second: float) -> None:
        """Write what was said until then."""
        for writer, waiting in self._waiting:
            while waiting and waiting[0][0] <= second:
                told_s, event = waiting.pop(0)
                writer.append(event, at_ns=at(told_s))
            writer.flush()

    def die(self) -> None:
        """All writers are gone, and nothing says so."""
        for writer, _ in self._waiting:
            writer.close()
