"""Messages between two processes over a socket pair that keeps their edges."""

import select
import socket

import msgspec

from llem.measure.messages import AnyMessage, Message

MAX_MESSAGE_BYTES = 2**17  # below the kernel's default socket buffer

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


class PeerGoneError(Exception):
    """The process at the other end has closed its channel or died."""


class Channel:
    """One end; the other end's death is an end of file."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Two connected ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls, fd: int) -> "Channel":
        """The end that the parent passed as a file descriptor."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd))

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send, waiting for room. Raises PeerGoneError."""
        try:
            self._socket.send(_encoder.encode(message))
        except (BrokenPipeError, ConnectionError) as error:
            raise PeerGoneError from error

    def offer(self, message: Message) -> None:
        """Send if there is room; news that can be missed, such as progress."""
        try:
            self._socket.send(_encoder.encode(message), socket.MSG_DONTWAIT)
        except OSError:
            return

    def receive(self, *, timeout_s: float | None = None) -> AnyMessage | None:
        """The next message, or None when `timeout_s` has passed. Raises PeerGoneError."""
        if not self.ready(timeout_s):
            return None
        try:
            packet = self._socket.recv(MAX_MESSAGE_BYTES)
        except ConnectionError as error:
            raise PeerGoneError from error
        if not packet:
            raise PeerGoneError
        return _decoder.decode(packet)

    def ready(self, timeout_s: float | None) -> bool:
        """Whether a message, or the peer's end, is there within `timeout_s`."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))

    def close(self) -> None:
        """Close this end; may be called twice."""
        self._socket.close()
