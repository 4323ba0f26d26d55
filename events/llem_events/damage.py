"""What can be said of a whole segment, and of each part of it that does not verify."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What can be said of a whole segment."""

    CLEAN = "clean"  # sealed, everything verifies
    UNCLOSED = "unclosed"  # no seal, ends on a block's edge: the writer is at work, or was killed
    TORN = "torn"  # no seal, ends inside its last write: a crash
    CORRUPT = "corrupt"  # anything else


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [offset, end) that did not verify, and the block and event numbers that they held, where known."""

    offset: int
    end: int
    text: str
    first_block: int
    first_event: int
    next_block: int | None = None
    next_event: int | None = None

    @property
    def missing_blocks(self) -> int:
        """How many blocks were there, as far as the numbers around them tell."""
        return 0 if self.next_block is None else self.next_block - self.first_block

    @property
    def missing_events(self) -> int:
        """The same for events."""
        return 0 if self.next_event is None else self.next_event - self.first_event
