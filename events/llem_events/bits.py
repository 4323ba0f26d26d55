"""Numbers of any width up to 64 bits, one after the other, the least significant bit first."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.uint64]
_PADDING = bytes(8)  # the last number is read as eight bytes too


def pack_bits(rows: Counts, widths: Sequence[int]) -> bytes:
    """The numbers of each row in as many bits as its width, every row filled up to a whole byte."""
    cells = rows.astype("<u8", copy=False).view(np.uint8).reshape(*rows.shape, 8)
    used_bytes = (max(widths) + 7) // 8
    bits = np.unpackbits(cells[:, :, :used_bytes], axis=2, bitorder="little")
    return b"".join(
        [
            np.packbits(bits[row, :, :width], bitorder="little").tobytes()
            for row, width in enumerate(widths)
            if width
        ]
    )


def unpack_bits(packed: bytes, starts: npt.NDArray[np.int64], *, width: int, count: int) -> Counts:
    """A row of `count` numbers of `width` bits from each byte in `starts`; a width over 56 is 64.

    Eight numbers fill `width` bytes, so every eighth number begins at the same bit of its byte.
    """
    if not width:
        return np.zeros((len(starts), count), np.uint64)
    row_bytes = (count * width + 7) // 8 + len(_PADDING)
    padded = np.frombuffer(packed + _PADDING, np.uint8)
    windows = np.ndarray((len(padded) - row_bytes + 1, row_bytes), np.uint8, padded, strides=(1, 1))
    rows = windows[starts]
    numbers = np.empty((len(starts), count), np.uint64)
    for place in range(min(8, count)):
        at_byte, at_bit = divmod(place * width, 8)
        shape = len(starts), len(range(place, count, 8))
        eight_bytes = np.ndarray(shape, "<u8", rows, at_byte, (row_bytes, width))
        np.right_shift(eight_bytes, at_bit, out=numbers[:, place::8])
    numbers &= np.uint64(2**width - 1)
    return numbers
