"""Server-sent events from bytes, however these are cut into reads; the format is WHATWG's, of which only `data` is of use here."""

from llem.load.http1 import AnswerError

MAX_EVENT_BYTES = 64 * 2**20
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Takes the bytes of a stream as they come, gives the data of every event that is complete."""

    __slots__ = ("_is_first", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_first = True

    def feed(self, piece: bytes) -> list[bytes]:
        """Data of the events that end in this piece; lines of one event are joined by a newline. Raises AnswerError."""
        if not self._rest and piece.startswith(b"data: ") and piece.endswith(b"\n\n") and b"\r" not in piece:
            data = piece[6:-2].split(b"\n\ndata: ")
            if piece.count(b"\n") == 2 * len(data):
                # nothing but events of one line
                self._is_first = False
                return data
        if self._is_first and piece and not piece.startswith(_BOM[:1]):
            self._is_first = False
        if self._rest or self._is_first or b"\r" in piece:
            return self._feed_slowly(piece)
        *events, rest = piece.split(b"\n\n")
        if rest:
            self._rest += rest
        return _data_of(events)

    def end(self) -> list[bytes]:
        """Data of a last event without a blank line after it, as some servers leave it."""
        if not self._rest:
            return []
        rest, self._rest = bytes(self._rest), bytearray()
        return _data_of([rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")])

    def _feed_slowly(self, piece: bytes) -> list[bytes]:
        """The same where an event began in an earlier piece, a byte order mark may come, or lines end as elsewhere."""
        searched = max(0, len(self._rest) - 1)
        has_returns = b"\r" in piece or self._rest.endswith(b"\r")
        self._rest += piece
        if self._is_first:
            self._leave_out_byte_order_mark()
        if has_returns:
            return self._with_carriage_returns()
        end = self._rest.rfind(b"\n\n", searched)
        if end < 0:
            self._check_size()
            return []
        events = bytes(self._rest[:end]).split(b"\n\n")
        del self._rest[: end + 2]
        return _data_of(events)

    def _leave_out_byte_order_mark(self) -> None:
        if not _BOM.startswith(self._rest[:3]):
            self._is_first = False
        elif len(self._rest) >= len(_BOM):
            self._is_first = False
            del self._rest[: len(_BOM)]

    def _with_carriage_returns(self) -> list[bytes]:
        """A carriage return at the very end stays: a newline that belongs to it may follow."""
        held = self._rest.endswith(b"\r")
        text = bytes(self._rest[:-1] if held else self._rest).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = text.split(b"\n\n")
        self._rest = bytearray(rest + b"\r" if held else rest)
        self._check_size()
        return _data_of(events)

    def _check_size(self) -> None:
        if len(self._rest) > MAX_EVENT_BYTES:
            raise AnswerError(f"an event of more than {MAX_EVENT_BYTES} bytes")


def _data_of(events: list[bytes]) -> list[bytes]:
    """The data of each event that has some."""
    found = []
    for event in events:
        if event.startswith(b"data: ") and b"\n" not in event:
            found.append(event[6:])
        elif (data := _data_of_lines(event)) is not None:
            found.append(data)
    return found


def _data_of_lines(event: bytes) -> bytes | None:
    """The data of an event of any lines: comments, other fields, several of data; None without data."""
    lines = [
        _after_colon(line) for line in event.split(b"\n") if line == b"data" or line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


def _after_colon(line: bytes) -> bytes:
    return line[5:].removeprefix(b" ")
