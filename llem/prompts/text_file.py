"""The text of a prompt file in bounded pieces: decompressed and decoded by what its first bytes say."""

import codecs
import gzip
import stat
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import zstandard

from llem.errors import PlanError

CHUNK_BYTES = 2**18
_PACKED_BYTES = 2**10  # of zstd, at once: they may hold 32 MiB of text
MAX_TEXT_BYTES = 2**31
MAX_WINDOW_BYTES = 2**27
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # before UTF-16, whose mark is the first half of this one
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = (
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (GZIP, "a gzip file"),
    (ZSTD, "a zstd file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"%PDF", "a PDF"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE", "HTML"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
)
EXPECTED = "JSON Lines, a JSON array, CSV with a header, or one prompt a line; as it is, or as .gz or .zst"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _ZstdFile:
    """Frames one after another; a file that ends within one is an error, which zstandard's own reader takes for the end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._pending = b""
        self._frame = _new_frame()
        self._is_within = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def read(self, _size: int, /) -> bytes:
        """The text of the next few bytes, of any length; nothing at the end. Raises ZstdError, EOFError."""
        while packed := self._pending or self._source.read(_PACKED_BYTES):
            text = self._frame.decompress(packed)
            self._pending, self._is_within = self._frame.unused_data, not self._frame.eof
            if self._frame.eof:
                self._frame = _new_frame()
            if text:
                return text
        if self._is_within:
            raise EOFError("the file ends within a frame")
        return b""


def _new_frame() -> "zstandard.ZstdDecompressionObj":  # a name that only type checkers see
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()


def read_pieces(path: Path) -> Iterator[str]:
    """The file's text, piece by piece, without its byte order mark. Raises PlanError."""
    return _decoded(path, _checked(path))


def _checked(path: Path) -> Iterator[bytes]:
    """The file's bytes, decompressed, up to the limit."""
    total = 0
    try:
        with _open(path) as source:
            while chunk := source.read(CHUNK_BYTES):
                total += len(chunk)
                if total > MAX_TEXT_BYTES:
                    raise PlanError(
                        f"prompt file {path} is too large", expected=f"at most {MAX_TEXT_BYTES} bytes of text"
                    )
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise PlanError(f"prompt file {path} cannot be decompressed", found=error) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlanError(
            f"prompt file {path} cannot be read", found=reason, hint="check workload.path"
        ) from None


def _open(path: Path) -> AbstractContextManager[_Readable]:
    # a pipe could be read once only, and every process reads the file
    if not stat.S_ISREG(path.stat().st_mode):
        raise PlanError(f"prompt file {path} cannot be read", found="not a regular file")
    with open(path, "rb") as source:
        magic = source.read(len(ZSTD))
    if magic.startswith(GZIP):
        return gzip.GzipFile(path)
    if magic == ZSTD:
        return _ZstdFile(open(path, "rb"))
    return open(path, "rb")


def _decoded(path: Path, chunks: Iterator[bytes]) -> Iterator[str]:
    """Text of the bytes; a byte that is no text is named with its line."""
    decoder, line, consumed_bytes = None, 1, 0
    for chunk in _with_last(chunks):
        decoder = decoder or codecs.getincrementaldecoder(_encoding(path, chunk))()
        start = consumed_bytes - len(decoder.getstate()[0])
        try:
            piece = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise _not_text(path, error, line=line, start=start) from None
        _check_zeros(path, piece, line=line)
        line += piece.count("\n")
        consumed_bytes += len(chunk)
        if piece:
            yield piece


def _check_zeros(path: Path, piece: str, *, line: int) -> None:
    if "\0" in piece:
        line += piece.count("\n", 0, piece.index("\0"))
        raise PlanError(
            f"prompt file {path} is not text", found=f"a zero byte in line {line}", expected=EXPECTED
        )


def _with_last(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks
    yield b""


def _encoding(path: Path, head: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            raise PlanError(f"prompt file {path} is not understood", found=name, expected=EXPECTED)
    return "utf-8"


def _not_text(path: Path, error: UnicodeError, *, line: int, start: int) -> PlanError:
    if not isinstance(error, UnicodeDecodeError):
        return PlanError(f"prompt file {path} is not text", found=error)
    line += bytes(error.object)[: error.start].count(b"\n")
    return PlanError(
        f"prompt file {path} is not {error.encoding.upper()}",
        found=f"line {line}, byte {start + error.start}: {error.reason}",
        hint="save it as UTF-8",
    )
