"""A folder at an address of fsspec, such as s3://BUCKET/FOLDER: listed, read, written and emptied; whatever fails there is told in one line."""

import hashlib
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from llem.errors import MissingExtraError, StoreError

AT_ONCE = 16  # requests, each of which mostly waits
CHUNK_BYTES = 2**20
CONNECT_S, READ_S = 5.0, 30.0
RETRIES = 1
_GRAMMAR = re.compile(r"([a-z][a-z0-9+.-]*)://[^@?#\s]+")
_LOCAL, _WEB = ("file", "local"), ("http", "https")
_EXPECTED = "an address such as s3://BUCKET/FOLDER"
_PACKAGES = {"s3": "s3fs", "http": "aiohttp", "https": "aiohttp"}
_SHOWN = 300  # characters of what a back end says
Thing = TypeVar("Thing")
Answer = TypeVar("Answer")


class MissingError(StoreError):
    """A file, a folder or a bucket that is not there."""


def is_address(written: str) -> bool:
    """Whether it names something elsewhere, and no folder."""
    return "://" in written


class RemoteFolder:
    """A folder at an address; paths are relative to it. Who may read it is said by the environment, in the words of its back end."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._scheme = _scheme(self.address)
        self._files = _file_system(self._scheme)
        self._root = str(self._files._strip_protocol(self.address)).rstrip("/")

    def check_writable(self) -> None:
        """Raises StoreError for a back end that is only read."""
        if self._scheme in _WEB:
            raise StoreError(f"{self.address} cannot be written", found=self._scheme, expected=_EXPECTED)

    def local(self) -> Path | None:
        """The same folder where it lies on this machine."""
        return Path(self._root) if self._scheme in _LOCAL else None

    def folders(self, under: str) -> list[str]:
        """Names of the folders in a folder. Raises StoreError."""
        with self._told(under, "listed"):
            entries = self._files.ls(self._path(under), detail=True)
        paths = [self._relative(entry["name"]) for entry in entries if entry["type"] == "directory"]
        return sorted(PurePosixPath(path).name for path in paths)

    def sizes(self, under: str = "") -> dict[str, int]:
        """Bytes of every file in a folder and those in it, -1 where the server does not say; of a missing folder none. Raises StoreError."""
        with self._told(under, "listed"):
            entries = self._files.find(self._path(under), detail=True)
        return {
            self._relative(name): -1 if entry.get("size") is None else entry["size"]
            for name, entry in entries.items()
        }

    def read(self, path: str) -> bytes:
        """All of a small file. Raises StoreError."""
        with self._told(path, "read"):
            content: bytes = self._files.cat_file(self._path(path))
        return content

    def fetch(self, path: str, target: Path, *, most_bytes: int, on_bytes: Callable[[int], None]) -> str:
        """Copy a file, and a byte more than `most_bytes` of it at most; returns the SHA-256 of the copy. Raises StoreError."""
        digest, left = hashlib.sha256(), most_bytes + 1
        # a server of the web may know no ranges
        reading = {"block_size": 0} if self._scheme in _WEB else {"block_size": 8 * CHUNK_BYTES}
        with (
            self._told(path, "read"),
            self._files.open(self._path(path), "rb", **reading) as source,
            target.open("wb") as copy,
        ):
            while left and (chunk := source.read(min(CHUNK_BYTES, left))):
                copy.write(chunk)
                digest.update(chunk)
                left -= len(chunk)
                on_bytes(len(chunk))
        return digest.hexdigest()

    def put(self, source: Path, path: str) -> None:
        """Copy a file there. Raises StoreError."""
        with self._told(path, "written"):
            self._files.put_file(str(source), self._path(path))

    def write(self, path: str, content: bytes) -> None:
        """A small file at once. Raises StoreError."""
        with self._told(path, "written"):
            self._files.pipe_file(self._path(path), content)

    def remove(self, paths: Iterable[str]) -> None:
        """These files, as far as they are there. Raises StoreError."""
        for path in paths:
            with suppress(MissingError), self._told(path, "removed"):
                self._files.rm_file(self._path(path))

    def _path(self, path: str) -> str:
        # of a path on the web, the server takes one layer of quoting off
        named = quote(path, safe="/=") if self._scheme in _WEB else path
        return f"{self._root}/{named}" if path else self._root

    def _relative(self, name: str) -> str:
        if self._scheme in _WEB:
            name, root = unquote(name), unquote(self._root)
        else:
            root = self._root
        return name.removeprefix(root).strip("/")

    @contextmanager
    def _told(self, path: str, done: str) -> Iterator[None]:
        """Whatever happens to a request as a StoreError."""
        place = f"{self.address}/{path}" if path else self.address
        try:
            yield
        except FileNotFoundError as error:
            said = _in_words(error)
            # some back ends say the path again, and no more
            raise MissingError(f"{place} is not there", found=said if " " in said else None) from error
        except PermissionError as error:
            raise StoreError(
                f"{place} may not be {done}",
                found=_in_words(error),
                hint="llem uses the credentials of its environment",
            ) from error
        except Exception as error:
            # each back end has errors of its own, of which there is no list
            raise StoreError(f"{place} cannot be {done}", found=_in_words(error)) from error


def at_once(do: Callable[[Thing], Answer], things: Iterable[Thing]) -> Iterator[tuple[Thing, Answer]]:
    """Each thing with what came of it, as they end; after a failure no further one is begun."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        begun = {pool.submit(do, thing): thing for thing in things}
        for future in as_completed(begun):
            yield begun[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _scheme(address: str) -> str:
    match = _GRAMMAR.fullmatch(address)
    if match is None:
        # not shown: what stands there may be a password or a signed request
        raise StoreError(
            "the address of sealed Parquet",
            found="something else than scheme://place/folder",
            expected=_EXPECTED,
            hint="credentials are those of the environment",
        )
    if match[1] == "memory":
        raise StoreError(address, found="the memory of one process", expected=_EXPECTED)
    return match[1]


def _file_system(scheme: str) -> Any:
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise MissingExtraError(
            f"{scheme}:// addresses", found="no package fsspec", hint="pip install 'llem[remote]'"
        ) from error
    try:
        files = fsspec.filesystem(scheme, skip_instance_cache=True, **_options(scheme))
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        hint = f"pip install {package}" if package else None
        raise MissingExtraError(f"{scheme}:// addresses", found=_in_words(error), hint=hint) from error
    except ValueError as error:
        raise StoreError(f"{scheme}:// addresses", found=_in_words(error), expected=_EXPECTED) from error
    if scheme == "s3":
        files.retries = RETRIES + 1
    return files


def _options(scheme: str) -> dict[str, Any]:
    """Nobody waits for minutes for what does not answer."""
    if scheme == "s3":
        limits = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"max_attempts": RETRIES}}
        return {"config_kwargs": limits}
    if scheme in _WEB:
        timeout = importlib.import_module("aiohttp").ClientTimeout(sock_connect=CONNECT_S, sock_read=READ_S)
        return {"client_kwargs": {"timeout": timeout}}
    return {"auto_mkdir": True} if scheme in _LOCAL else {}


def _in_words(error: Exception) -> str:
    """One line of it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (" ".join(str(error).split()) or type(error).__name__)[:_SHOWN]
