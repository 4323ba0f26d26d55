"""Counts of nanoseconds in buckets that grow with what they hold: a day of samples in a few kilobytes."""

from collections import Counter

PRECISION_BITS = 5  # a bucket is at most 1/16 wide of what it holds


class Histogram:
    """Quantiles of whole numbers from 0 on, each too high by at most a sixteenth."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()
        self._total = 0

    def __len__(self) -> int:
        """How many buckets hold something."""
        return len(self._counts)

    def add(self, number: int) -> None:
        """Count one number."""
        shift = max(0, number.bit_length() - PRECISION_BITS)
        self._counts[shift, number >> shift] += 1
        self._total += 1

    def quantile(self, share: float) -> int | None:
        """The highest number of the bucket at which `share` of all that was counted is reached; None before the first."""
        if self._total == 0:
            return None
        rank = min(self._total - 1, int(self._total * share))
        seen = 0
        for (shift, leading), count in sorted(self._counts.items()):
            seen += count
            if seen > rank:
                return ((leading + 1) << shift) - 1
        return None
