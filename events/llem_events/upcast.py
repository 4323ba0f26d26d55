"""Every event version that can be read, and the way of an old one to today's."""

from collections.abc import Iterable, Mapping

from llem_events.events import EVENT_TYPES, Event
from llem_events.retired import STEPS


def _by_version(types: Iterable[type[Event]]) -> dict[tuple[str, int], type[Event]]:
    return {(event.TYPE, event.VERSION): event for event in types}


KNOWN_VERSIONS: Mapping[tuple[str, int], type[Event]] = _by_version((*STEPS, *EVENT_TYPES))


def upcast(event: Event) -> Event:
    """Today's version of an event of any known version."""
    while (step := STEPS.get(type(event))) is not None:
        event = step(event)
    return event
