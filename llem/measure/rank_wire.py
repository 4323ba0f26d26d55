"""What the ranks of a job say to each other over TCP: messages of msgpack, each behind its length."""

import hashlib
import hmac
import socket
import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from llem.measure.messages import Barrier
from llem_events.events import Device

Position = Literal["before", "after"]
MAX_BYTES = 2**20
_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()


class RankMessage(msgspec.Struct, frozen=True, tag=True):
    """One message; the class name is its tag."""


class Join(RankMessage, frozen=True, kw_only=True):
    """The first message of a rank: who it is, and which GPUs it would use if it were alone."""

    token: str
    rank: int
    size: int
    host: str
    local_rank: int | None
    work: str  # digest of plan and command: all ranks measure the same
    llem_version: str
    devices: list[Device]


class NotYours(RankMessage, frozen=True):
    """To a stranger: another job meets here."""

    text: str


class Welcome(RankMessage, frozen=True, kw_only=True):
    """Everybody is here: the experiment's id, and the UUIDs of the rank's own GPUs."""

    experiment_id: str
    leader_host: str
    devices: list[str]


class Ready(RankMessage, frozen=True, kw_only=True):
    """All checks are passed; the rank will run so many processes on these devices."""

    processes: int
    devices: list[str]


class Refuse(RankMessage, frozen=True):
    """Nothing will be measured, by anybody."""

    text: str


class Begin(RankMessage, frozen=True, kw_only=True):
    """Everybody is ready: the index of the rank's first process, and how many there are in all."""

    first_process: int
    processes: int


class Compare(RankMessage, frozen=True):
    """It is the rank's turn to compare its clock."""

    position: Position


class AskTime(RankMessage, frozen=True):
    """What does your clock say?"""


class TellTime(RankMessage, frozen=True):
    """Both clocks of rank 0, read together."""

    monotonic_ns: int
    wall_ns: int


class Compared(RankMessage, frozen=True, kw_only=True):
    """The rank's clock is compared, which is the next one's turn: its wall clock minus rank 0's, and the bound of that."""

    offset_ns: int
    error_ns: int


class Reach(RankMessage, frozen=True):
    """The rank waits at a barrier."""

    barrier: Barrier


class Go(RankMessage, frozen=True):
    """All are at the barrier, and pass it at this moment of rank 0's monotonic clock."""

    barrier: Barrier
    at_ns: int


class Ended(RankMessage, frozen=True, kw_only=True):
    """All processes of the rank have ended, and so many of them have completed."""

    completed: int
    has_measured: bool
    interrupted_by: str | None = None
    failures: list[str] = []


class Sealed(RankMessage, frozen=True):
    """The rank's log is whole, and nothing more comes of it."""


class Collect(RankMessage, frozen=True):
    """The logs of all ranks are whole: whoever brings its own somewhere does so now."""


class Collected(RankMessage, frozen=True):
    """It is there."""


AnyRankMessage = (
    Join
    | NotYours
    | Welcome
    | Ready
    | Refuse
    | Begin
    | Compare
    | AskTime
    | TellTime
    | Compared
    | Reach
    | Go
    | Ended
    | Sealed
    | Collect
    | Collected
)
_decoder: msgspec.msgpack.Decoder[AnyRankMessage] = msgspec.msgpack.Decoder(AnyRankMessage)


class StrangeMessageError(Exception):
    """What came is no message of a rank."""


def token_of(job_key: str, secret: str) -> str:
    """What a rank shows to be of this job; `secret` is one that a person chose, or empty."""
    return hmac.digest(secret.encode(), job_key.encode(), "sha256").hex()


def port_of(job_key: str, attempt: int) -> int:
    """Where the ranks of a job meet: below the ports that systems give away, another for each attempt."""
    digest = hashlib.sha256(f"{job_key}/{attempt}".encode()).digest()
    return 20_000 + int.from_bytes(digest[:4], "big") % 12_000


def packed(message: RankMessage) -> bytes:
    """A message behind its length."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Inbox:
    """What has come over a connection, as messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, received: bytes) -> Iterator[AnyRankMessage]:
        """Every message that is whole by now. Raises StrangeMessageError."""
        self._bytes += received
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > MAX_BYTES:
                raise StrangeMessageError
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            try:
                yield _decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise StrangeMessageError from error


def keep_alive(connection: socket.socket) -> None:
    """Notice a machine that is gone without a word; asks it once a minute, so never while it measures."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)
