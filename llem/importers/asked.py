"""What only the user knows of a file: which part of it is the measurement, and when its times were."""

import math
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import msgspec

from llem.errors import PlanError
from llem.units import NS_PER_S

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_INTERVAL_S = 3600


class ImpossibleTimeError(ValueError):
    """A time that is out of reach of any clock, which no zone could be found for."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Options of an import; None where nobody said."""

    window: str | None = None  # START,END: seconds from the first sample, or times
    timezone: str | None = None  # of times without one
    start: str | None = None  # of a file that has no times
    interval_s: float | None = None  # between two samples of such a file

    @property
    def zone(self) -> tzinfo | None:
        """None: this host's. Raises PlanError."""
        if self.timezone is None:
            return None
        if self.timezone == "UTC":
            return UTC  # without a database of zones
        try:
            return datetime.strptime(self.timezone, "%z").tzinfo
        except ValueError:
            return _named_zone(self.timezone)

    def note_of_zone(self) -> str:
        """How times without a zone were read."""
        if self.timezone is not None:
            return f"its times have no zone and were taken for those of {self.timezone}"
        return "its times have no zone and were taken for local ones of the importing host (--timezone says another)"

    def unix_ns(self, moment: datetime) -> int:
        """Nanoseconds since 1970 of a time with a zone or without. Raises ImpossibleTimeError."""
        if not 1970 <= moment.year <= 2200:
            raise ImpossibleTimeError(moment.isoformat())
        if moment.tzinfo is None:
            moment = moment.astimezone() if self.zone is None else moment.replace(tzinfo=self.zone)
        since = moment - EPOCH
        return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000

    def window_ns(self, first_ns: int) -> tuple[int, int] | None:
        """Start and end in nanoseconds since 1970. Raises PlanError."""
        if self.window is None:
            return None
        start, comma, end = self.window.partition(",")
        if not comma:
            raise _unreadable("--window", self.window, "START,END")
        edges = (self._edge_ns(start, first_ns), self._edge_ns(end, first_ns))
        if edges[0] >= edges[1]:
            raise PlanError("--window", found=self.window, expected="an end after its start")
        return edges

    def start_ns(self) -> int | None:
        """Nanoseconds since 1970. Raises PlanError."""
        return None if self.start is None else self.unix_ns(_time("--start", self.start))

    def interval_ns(self) -> int | None:
        """Between two samples. Raises PlanError."""
        if self.interval_s is None:
            return None
        if not 0 < self.interval_s <= MOST_INTERVAL_S:
            raise _unreadable("--interval", f"{self.interval_s:g}", f"above 0, at most {MOST_INTERVAL_S} s")
        return round(self.interval_s * NS_PER_S)

    def _edge_ns(self, written: str, first_ns: int) -> int:
        try:
            seconds = float(written)
        except ValueError:
            return self.unix_ns(_time("--window", written))
        if not math.isfinite(seconds) or abs(seconds) > 2**31:
            raise _unreadable("--window", written, "seconds that have an end")
        return first_ns + round(seconds * NS_PER_S)


def _named_zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise _unreadable(
            "--timezone", name, "UTC, an offset such as +02:00, or a name such as Europe/Berlin"
        ) from error


def _time(option: str, written: str) -> datetime:
    try:
        return datetime.fromisoformat(written.strip().replace("/", "-"))
    except ValueError:
        raise _unreadable(option, written, "seconds, or a time such as 2026-11-26T10:00:00") from None


def _unreadable(option: str, written: str, expected: str) -> PlanError:
    return PlanError(option, found=repr(written), expected=expected)
