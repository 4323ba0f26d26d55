"""Caps checked before any allocation; a reader refuses what exceeds them, a writer never writes it."""

MAX_COMPRESSED_BLOCK_BYTES = 16 * 2**20
MAX_RAW_BLOCK_BYTES = 16 * 2**20  # a block target and the largest event, with room
MAX_ZSTD_WINDOW_BYTES = 8 * 2**20
MAX_EVENTS_PER_BLOCK = 2**16
MAX_HEADER_BYTES = 64 * 2**10

BLOCK_TARGET_BYTES = 256 * 2**10  # a writer closes its block at this raw size
BLOCK_TARGET_NS = 1_000_000_000  # or when its first event is this old
