"""A rank other than 0: finds rank 0, and does what it says."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from llem.errors import MeasureError
from llem.measure.messages import Barrier
from llem.measure.rank_clock import ClockOffset, compare
from llem.measure.rank_wire import (
    AnyRankMessage,
    AskTime,
    Begin,
    Collect,
    Collected,
    Compare,
    Compared,
    Ended,
    Go,
    Inbox,
    Join,
    NotYours,
    RankMessage,
    Reach,
    Ready,
    Refuse,
    Sealed,
    StrangeMessageError,
    TellTime,
    Welcome,
    packed,
)

Kind = TypeVar("Kind", bound=RankMessage)
RETRY_S = 0.1
_CHUNK = 2**16


class LeaderGoneError(Exception):
    """Rank 0 has hung up or died."""


class RefusedError(MeasureError):
    """Rank 0 has said why nothing is measured; it says so to people as well."""


class RankMember:
    """The connection to rank 0. A rank 0 that is gone after the beginning is no reason to stop: nobody is waited for any more."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        join: Join,
        *,
        limit_s: float,
    ) -> None:
        self._addresses, self._join, self._limit_s = addresses, join, limit_s
        self._should_stop: Callable[[], bool] = lambda: False
        self._inbox = Inbox()
        self._waiting: list[AnyRankMessage] = []
        self._offset: ClockOffset | None = None
        self._socket: socket.socket | None = None
        self._failure: str | None = None  # of the last try to connect
        self.lost_leader = False

    def join(self) -> Welcome:
        """Wait until every rank is there. Raises RefusedError, or MeasureError where rank 0 is not found."""
        deadline = time.monotonic() + self._limit_s
        stranger: str | None = None
        while time.monotonic() < deadline:
            for address in self._addresses:
                answer = self._greet(address, deadline)
                if isinstance(answer, Welcome):
                    return answer
                stranger = answer.text if isinstance(answer, NotYours) else stranger
            time.sleep(RETRY_S)
        host, port = self._addresses[0]
        raise MeasureError(
            f"rank {self._join.rank} did not reach rank 0 at {host}, port {port}, within {self._limit_s:g} s",
            found=stranger or self._failure or "nobody there",
            expected="rank 0 of this job",
            hint="LLEM_RENDEZVOUS=HOST:PORT says where it is, LLEM_JOB tells jobs apart",
        )

    def ready(self, ready: Ready) -> tuple[Begin, ClockOffset]:
        """Wait until all are; compare clocks. Raises RefusedError."""
        self._send(ready)
        try:
            begin = self._await(Begin, time.monotonic() + 2 * self._limit_s)
            self._await(Compare, None)
            self._offset = self._compare()
        except LeaderGoneError:
            raise RefusedError("rank 0 was lost before the beginning") from None
        return begin, self._offset

    def refuse(self, text: str) -> None:
        """Nobody begins, because this rank cannot."""
        self._send(Refuse(text))

    def reach(self, barrier: Barrier) -> None:
        """This rank waits at the barrier."""
        self._send(Reach(barrier))

    def going_at_ns(self, barrier: Barrier) -> int | None:
        """The moment of this machine's monotonic clock at which all pass the barrier, now where rank 0 is gone; None while somebody is missing."""
        self._listen(0.0)
        for message in self._waiting:
            if isinstance(message, Go) and message.barrier == barrier:
                offset_ns = self._offset.monotonic_ns if self._offset is not None else 0
                return message.at_ns + offset_ns
        return time.monotonic_ns() if self.lost_leader else None

    def end(self, ended: Ended, *, should_stop: Callable[[], bool] = lambda: False) -> ClockOffset | None:
        """Say how this rank ended and wait for the others; the clock as it is then, None where rank 0 is gone or nobody is waited for any more."""
        self._should_stop = should_stop
        self._send(ended)
        try:
            self._await(Compare, None)
            return self._compare()
        except LeaderGoneError:
            return None

    def sealed(self) -> None:
        """The log of this rank is whole."""
        self._send(Sealed())

    def collect(self, do: Callable[[], None]) -> None:
        """Bring the log of this rank where all are brought, once those of all ranks are whole."""
        with contextlib.suppress(LeaderGoneError):
            self._await(Collect, None)
        do()
        self._send(Collected())

    def wakers(self) -> list[int]:
        """File descriptors on which rank 0 may say something."""
        return [self._socket.fileno()] if self._socket is not None and not self.lost_leader else []

    def close(self) -> None:
        """Hang up; may be called twice."""
        if self._socket is not None:
            self._socket.close()

    def _greet(self, address: tuple[str, int], deadline: float) -> Welcome | NotYours | None:
        """Rank 0's answer to our name; None where nobody answers there. Raises RefusedError."""
        try:
            connection = socket.create_connection(address, timeout=max(0.1, deadline - time.monotonic()))
        except OSError as error:
            self._failure = error.strerror
            return None
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close()
        self._socket, self._inbox, self._waiting, self.lost_leader = connection, Inbox(), [], False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._send(self._join)
        try:
            # rank 0 may have begun to wait for the others later than this one
            answer = self._await_any((Welcome, NotYours), time.monotonic() + 2 * self._limit_s)
            assert isinstance(answer, Welcome | NotYours)
            return answer
        except LeaderGoneError:
            return None

    def _await(self, kind: type[Kind], deadline: float | None) -> Kind:
        message = self._await_any((kind,), deadline)
        assert isinstance(message, kind)
        return message

    def _await_any(self, kinds: tuple[type[RankMessage], ...], deadline: float | None) -> RankMessage:
        """The next message of a kind, taken out. Raises RefusedError, LeaderGoneError."""
        while True:
            for message in self._waiting:
                if isinstance(message, Refuse):
                    raise RefusedError(message.text)
                if isinstance(message, kinds):
                    self._waiting.remove(message)
                    return message
            if (
                self.lost_leader
                or self._should_stop()
                or (deadline is not None and time.monotonic() > deadline)
            ):
                raise LeaderGoneError
            self._listen(1.0)

    def _compare(self) -> ClockOffset:
        offset = compare(self._ask_time)
        self._send(Compared(offset_ns=offset.wall_ns, error_ns=offset.error_ns))
        return offset

    def _ask_time(self) -> tuple[int, int]:
        self._send(AskTime())
        told = self._await(TellTime, None)
        return told.monotonic_ns, told.wall_ns

    def _send(self, message: RankMessage) -> None:
        if self._socket is not None and not self.lost_leader:
            try:
                self._socket.sendall(packed(message))
            except OSError:
                self.lost_leader = True

    def _listen(self, timeout_s: float) -> None:
        """Take what has come, waiting so long for something to come."""
        if self._socket is None or self.lost_leader:
            return
        try:
            if not self._poll.poll(timeout_s * 1000):
                return
            received = self._socket.recv(_CHUNK)
            self._waiting += self._inbox.add(received)
            self.lost_leader = not received
        except (OSError, StrangeMessageError):
            self.lost_leader = True
