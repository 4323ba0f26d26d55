"""What is asked of the samples and requests of an experiment, wherever they are."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from llem.projections.derive.columns import Ints, RequestColumns
from llem.projections.derive.pieces import Asked
from llem.results.power import LeftOut

Column = NDArray[np.float64]
# Of these columns are the samples of a series: monotonic times, ascending, the columns, and what was left out between them, if anything.
SERIES = ("power_w", "energy_j", "throttle_reasons")
Series = tuple[Ints, Mapping[str, Column], LeftOut | None]
Span = tuple[int, int]  # nanoseconds of the monotonic clock, both ends included
# Monotonic times, ascending, and columns that are NaN where a value is missing.
Piece = tuple[Ints, Mapping[str, Column]]
# Column of samples -> the least and the most that a device of today reads; what is beyond was not measured.
POSSIBLE: Mapping[str, tuple[float, float]] = {
    "power_w": (0, 1e6),
    "power_average_w": (0, 1e6),
    "power_limit_w": (0, 1e6),
    "energy_j": (0, np.inf),
    "memory_used_bytes": (0, np.inf),
    "sm_clock_mhz": (0, np.inf),
    "memory_clock_mhz": (0, np.inf),
    "gpu_utilisation_pct": (0, 100),
    "memory_utilisation_pct": (0, 100),
    "temperature_c": (-60, 200),
    "throttle_reasons": (0, 2.0**53),
}
MEASUREMENT, WARMUP, DRAIN, GUARD = "measurement", "warmup", "drain", "guard"
MOMENTS, TIMES = ("arrival_ns", "start_ns", "first_token_ns", "end_ns"), ("token_times_ns",)
COUNTS = ("input_tokens", "output_tokens", "batch_index", "batch_size")
# Columns of each table that are not to be beyond any sense.
LIMITED = {"events": ("at_ns",), "samples": ("at_ns",), "requests": (*MOMENTS, *TIMES, *COUNTS)}


class Values(NamedTuple):
    """Of a column: how many samples there are, of how many it is known, the sum, the least and the largest; None of none."""

    samples: int
    known: int
    sum: float
    least: float | None
    most: float | None

    def joined(self, others: "Values") -> "Values":
        """Of these and others."""
        least = [end for end in (self.least, others.least) if end is not None]
        most = [end for end in (self.most, others.most) if end is not None]
        return Values(
            self.samples + others.samples,
            self.known + others.known,
            self.sum + others.sum,
            min(least, default=None),
            max(most, default=None),
        )


class Device(NamedTuple):
    """What was sampled, for which process."""

    process_index: int | None
    device_uuid: str


class Sampled(NamedTuple):
    """The samples of one device in one segment."""

    device: Device
    segment_id: str
    samples: int
    first_ns: int
    last_ns: int
    impossible: int

    def joined(self, others: "Sampled") -> "Sampled":
        """These and others of the same device and segment."""
        return self._replace(
            samples=self.samples + others.samples,
            first_ns=min(self.first_ns, others.first_ns),
            last_ns=max(self.last_ns, others.last_ns),
            impossible=self.impossible + others.impossible,
        )


class Sizes(NamedTuple):
    """How much there is to read of a segment's requests."""

    event_numbers: Ints  # ascending, of events with requests of the measurement
    values: Ints  # requests of each of these, and times of tokens and chunks
    warmup_requests: int


class Usage(NamedTuple):
    """Tokens of a segment's measured requests that did not fail: as they came, and as the server says for those of which it does."""

    streamed_output_tokens: int
    counted_output_tokens: int | None = None  # as they came, of those of which the server says it
    output_tokens: int | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None


class Source(Protocol):
    """Samples and requests of one experiment. Of requests, those that were measured, unless said otherwise."""

    def extremes(self, table: str) -> Mapping[str, Span]:
        """The least and the largest of the limited columns of all rows, of lists of all their values; nothing of a column without any."""

    def sampled(self) -> Sequence[Sampled]:
        """All samples, counted."""

    def extent(self, device: Device) -> tuple[int, int, int]:
        """How many samples there are, the time of the first and of the last; zeros without any."""

    def ranges(self, device: Device, span: Span) -> Iterable[Span]:
        """What is best read at once of a span."""

    def samples(self, device: Device, span: Span, names: Sequence[str]) -> Piece:
        """Columns of those in a span."""

    def series(self, device: Device, span: Span, asked: Asked) -> Iterable[Series]:
        """Those in a span in some parts, without many that nobody has to see."""

    def moments(self, device: Device, span: Span) -> Ints:
        """Some that are ends of what a series may leave out, ascending."""

    def values(self, device: Device, span: Span, names: Sequence[str]) -> Mapping[str, Values]:
        """What columns of whole numbers hold in a span."""

    def last_sample_ns(self, process_index: int, since_ns: int) -> int | None:
        """The latest sample of any of a process's devices."""

    def request_sizes(self, segment_id: str) -> Sizes:
        """What `requests` would return, event by event."""

    def requests(self, segment_id: str, first_event: int, last_event: int) -> RequestColumns:
        """Those that some events reported."""

    def request_ids(self, segment_id: str) -> Ints:
        """Those of a segment's requests, in the order in which they are read."""

    def last_end_ns(self, segment_id: str, window_kind: str, since_ns: int) -> int | None:
        """The latest end of a request of windows of one kind."""

    def usage(self, segment_id: str) -> Usage:
        """What a server says of its requests' tokens."""

    def repeated_request_ids(self) -> int:
        """Requests whose id another has too, in the whole experiment."""


def ascending(at_ns: Ints, columns: Mapping[str, Column]) -> Piece:
    """The same samples in the order of their times."""
    if (at_ns[1:] >= at_ns[:-1]).all():
        return at_ns, columns
    # Seldom, and DuckDB's ORDER BY takes longer than all the rest.
    order = np.argsort(at_ns, kind="stable")
    return at_ns[order], {name: values[order] for name, values in columns.items()}


def values_in(column: Column) -> Values:
    known = column[~np.isnan(column)]
    if not len(known):
        return Values(len(column), 0, 0.0, None, None)
    return Values(len(column), len(known), float(known.sum()), float(known.min()), float(known.max()))


def extremes_in(columns: Mapping[str, Sequence[Ints]]) -> Mapping[str, Span]:
    known = {name: [part for part in parts if len(part)] for name, parts in columns.items()}
    return {
        name: (min(int(part.min()) for part in parts), max(int(part.max()) for part in parts))
        for name, parts in known.items()
        if parts
    }
