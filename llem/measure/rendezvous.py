"""Where the ranks of a job meet: rank 0 listens, in a thread that sleeps while nobody says anything."""

import contextlib
import hmac
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llem.errors import MeasureError
from llem.measure.messages import Barrier
from llem.measure.rank_clock import wall_minus_monotonic
from llem.measure.rank_devices import Seat, check_claims, shares
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
    Position,
    RankMessage,
    Reach,
    Ready,
    Refuse,
    Sealed,
    StrangeMessageError,
    TellTime,
    Welcome,
    keep_alive,
    packed,
)

AT_ONCE = 4  # ranks that compare their clocks: more would wait for each other's answers
LEAD_NS, LEAD_NS_OF_A_RANK = 300_000_000, 100_000  # from the word to the moment at which all go
_CHUNK = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """What rank 0 knows of the job before anybody has come."""

    experiment_id: str
    token: str
    size: int
    limit_s: float  # for everybody to come, again to be ready, and again to have compared its clock
    gpus_per_rank: int = 1
    may_share: bool = False


@dataclass(slots=True)
class Member:
    """One rank, as rank 0 knows it; `connection` is None for rank 0 itself."""

    join: Join
    connection: "_Connection | None"
    ready: Ready | None = None
    clock: Compared | None = None  # the last comparison of its clock
    reached: set[Barrier] = field(default_factory=set)
    ended: Ended | None = None
    is_sealed: bool = False
    is_collected: bool = False
    is_lost: bool = False  # before its log was whole

    @property
    def name(self) -> str:
        """For people."""
        return f"rank {self.join.rank} on {self.join.host}"


class _Connection:
    """A socket that never blocks, with what is still to be sent."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = end
        self.inbox = Inbox()
        self.unsent = bytearray()
        self.rank: int | None = None

    def send(self, message: RankMessage) -> None:
        """What does not go out now goes out later."""
        self.unsent += packed(message)
        self.flush()

    def flush(self) -> None:
        """Send as much as there is room for; that the other end is gone is noticed when it is read."""
        with contextlib.suppress(OSError):
            del self.unsent[: self.socket.send(self.unsent)]


class Rendezvous:
    """Takes the ranks in, lets them begin and pass barriers together, gives each its turn to compare clocks, and sees them end.

    Whoever is lost after the beginning is left out from then on; before it, nobody begins. Rank 0 itself takes part through
    `join`, `ready`, `reach` and `end`.
    """

    def __init__(self, listener: socket.socket, meeting: Meeting) -> None:
        self._meeting, self._listener = meeting, listener
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._members: dict[int, Member] = {}
        self._strangers: set[_Connection] = set()
        self._welcomed: dict[int, list[str]] | None = None
        self._first_processes: dict[int, int] | None = None
        self._refusal: str | None = None
        self._go: dict[Barrier, int] = {}
        self._to_compare: deque[tuple[Position, Member]] = deque()
        self._comparing: dict[int, Position] = {}
        self._ends_are_compared = False
        self._ready = 0
        self._running = meeting.size  # neither lost nor at their end
        self._reached: Counter[Barrier] = Counter()
        self._wall_minus_monotonic_ns = wall_minus_monotonic()
        self._is_closed = False
        for end in (listener, self._wake):
            end.setblocking(False)
            self._selector.register(end, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="rendezvous", daemon=True)
        self._thread.start()

    # -- rank 0's own part -------------------------------------------------------------------

    def join(self, join: Join) -> list[str]:
        """Wait for everybody; the UUIDs of rank 0's GPUs. Raises MeasureError that names who is missing."""
        with self._changed:
            self._members[0] = Member(join, None)
            self._look()
        self._wait(lambda: self._welcomed is not None, self._missing)
        assert self._welcomed is not None
        return self._welcomed[0]

    def ready(self, ready: Ready) -> Begin:
        """Wait until everybody is ready and has compared its clock. Raises MeasureError for whoever is not."""
        with self._changed:
            self._note(self._members[0], ready)
            self._look()
        self._wait(lambda: self._first_processes is not None, self._unready)
        assert self._first_processes is not None
        self._wait(lambda: not self._to_compare and not self._comparing, self._uncompared)
        return Begin(first_process=self._first_processes[0], processes=self.processes)

    def refuse(self, text: str) -> None:
        """Nobody begins."""
        with self._changed:
            self._refuse_all(text)

    def reach(self, barrier: Barrier) -> None:
        """Rank 0 waits at the barrier."""
        with self._changed:
            self._note(self._members[0], Reach(barrier))
            self._look()

    def going_at_ns(self, barrier: Barrier) -> int | None:
        """The moment of this machine's monotonic clock at which all pass the barrier; None while somebody is missing."""
        with self._changed:
            return self._go.get(barrier)

    def end(self, ended: Ended, *, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Rank 0's processes have ended: wait until those of the others have, their clocks are compared and their logs sealed."""
        with self._changed:
            for message in (ended, Sealed()):
                self._note(self._members[0], message)
            for member in self._living():
                if member.connection is not None:
                    keep_alive(member.connection.socket)
            self._look()
            while not should_stop() and any(not member.is_sealed for member in self._living()):
                self._changed.wait(0.2)

    def collect(self, *, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Let all others bring their logs to where all are brought, and wait until they have."""
        with self._changed:
            others = [member for member in self._others() if not member.is_lost]
            for member in others:
                self._send(member.connection, Collect())
            while not should_stop() and not all(member.is_collected for member in others):
                self._changed.wait(0.2)

    @property
    def processes(self) -> int:
        """Of all ranks together."""
        return sum(member.ready.processes for member in self._members.values() if member.ready is not None)

    def members(self) -> list[Member]:
        """All ranks, in order."""
        with self._changed:
            return [self._members[rank] for rank in sorted(self._members)]

    def others(self) -> list[Member]:
        """All ranks but rank 0, in order."""
        return self.members()[1:]

    def close(self) -> None:
        """Hang up; may be called twice."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
        self._waker.send(b".")
        self._thread.join()

    def _wait(self, is_done: Callable[[], bool], missing: Callable[[], MeasureError]) -> None:
        deadline = time.monotonic() + self._meeting.limit_s
        with self._changed:
            while not is_done():
                if self._refusal is not None:
                    raise MeasureError(self._refusal)
                if time.monotonic() > deadline:
                    error = missing()
                    self._refuse_all(str(error))
                    raise error
                self._changed.wait(0.2)

    def _missing(self) -> MeasureError:
        absent = [rank for rank in range(self._meeting.size) if rank not in self._members]
        return MeasureError(
            f"{ranks_told(absent)} did not come within {self._meeting.limit_s:g} s",
            found=f"{len(self._members)} of {self._meeting.size} ranks",
            expected="all of them",
            hint="look at what they said; LLEM_RENDEZVOUS_S waits longer",
        )

    def _unready(self) -> MeasureError:
        absent = [rank for rank, member in self._members.items() if member.ready is None]
        return MeasureError(f"{ranks_told(absent)} were not ready within {self._meeting.limit_s:g} s")

    def _uncompared(self) -> MeasureError:
        waiting = len(self._to_compare)
        return MeasureError(
            f"{ranks_told(list(self._comparing))} did not compare its clock with rank 0's within {self._meeting.limit_s:g} s",
            found=f"{waiting} more that wait for their turn" if waiting else None,
            expected="all of them" if waiting else None,
            hint="does it stand still, or its network? LLEM_RENDEZVOUS_S waits longer",
        )

    # -- the thread ----------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            happened = self._selector.select()
            with self._changed:
                if self._is_closed:
                    break
                for key, events in happened:
                    self._take(key, events)
        self._hang_up()

    def _take(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj is self._wake:
            self._wake.recv(_CHUNK)
        else:
            connection: _Connection = key.data
            if events & selectors.EVENT_WRITE:
                connection.flush()
                self._watch(connection)
            if events & selectors.EVENT_READ:
                self._read(connection)

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(end)
            self._strangers.add(connection)
            self._selector.register(end, selectors.EVENT_READ, connection)

    def _read(self, connection: _Connection) -> None:
        try:
            received = connection.socket.recv(_CHUNK)
            if not received:
                self._lose(connection)
                return
            for message in connection.inbox.add(received):
                self._hear(connection, message)
        except BlockingIOError:
            return
        except (OSError, StrangeMessageError):
            self._lose(connection)

    def _send(self, connection: _Connection | None, message: RankMessage) -> None:
        if connection is not None:
            connection.send(message)
            self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.modify(connection.socket, events, connection)

    def _hear(self, connection: _Connection, message: AnyRankMessage) -> None:
        if isinstance(message, AskTime) and connection.rank is not None:
            now_ns = time.monotonic_ns()
            self._send(connection, TellTime(now_ns, now_ns + self._wall_minus_monotonic_ns))
            return
        if isinstance(message, Join):
            self._admit(connection, message)
        elif connection.rank is None:
            raise StrangeMessageError
        else:
            self._note(self._members[connection.rank], message)
        self._look()

    def _admit(self, connection: _Connection, join: Join) -> None:
        refusal = self._reason_against(join)
        if refusal is None:
            self._strangers.discard(connection)
            connection.rank = join.rank
            self._members[join.rank] = Member(join, connection)
            return
        self._send(connection, refusal)
        if isinstance(refusal, Refuse):
            self._refuse_all(refusal.text)

    def _reason_against(self, join: Join) -> NotYours | Refuse | None:
        if not hmac.compare_digest(join.token.encode(), self._meeting.token.encode()):
            return NotYours("the ranks of another job meet here")
        if join.size != self._meeting.size or not 0 < join.rank < self._meeting.size:
            return NotYours(f"found rank {join.rank} of {join.size}, expected one of {self._meeting.size}")
        if join.rank in self._members:
            return NotYours(f"rank {join.rank} is here already, on {self._members[join.rank].join.host}")
        if self._refusal is not None:
            return Refuse(self._refusal)
        return None

    def _note(self, member: Member, message: AnyRankMessage) -> None:
        match message:
            case Ready():
                member.ready = message
                self._ready += 1
            case Refuse(text):
                self._refuse_all(f"{member.name}: {text}")
            case Compared():
                member.clock = message
                self._comparing.pop(member.join.rank, None)
            case Reach(barrier):
                member.reached.add(barrier)
                self._reached[barrier] += 1
            case Ended():
                member.ended = message
                self._running -= 1
            case Sealed():
                member.is_sealed = True
            case Collected():
                member.is_collected = True
            case _:
                raise StrangeMessageError

    def _lose(self, connection: _Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)
        connection.socket.close()
        self._strangers.discard(connection)
        if connection.rank is None:
            return
        member = self._members[connection.rank]
        self._comparing.pop(member.join.rank, None)
        member.is_collected = True
        if not member.is_sealed:
            member.is_lost = True
            self._running -= member.ended is None
            if self._first_processes is None:
                self._refuse_all(f"{member.name} was lost before the beginning")
        self._look()

    # -- what follows from what is known -----------------------------------------------------------

    def _look(self) -> None:
        """Whatever is due now; called with the lock held, whenever anything has changed."""
        if self._refusal is None:
            self._welcome()
            self._begin()
        self._open_barriers()
        self._compare_ends()
        self._compare_next()
        self._changed.notify_all()

    def _welcome(self) -> None:
        if self._welcomed is not None or len(self._members) < self._meeting.size:
            return
        if (refusal := _disagreement(list(self._members.values()))) is not None:
            self._refuse_all(refusal)
            return
        seats = {rank: _seat(member.join) for rank, member in self._members.items()}
        self._welcomed = shares(seats, gpus_per_rank=self._meeting.gpus_per_rank)
        for rank, member in self._members.items():
            welcome = Welcome(
                experiment_id=self._meeting.experiment_id,
                leader_host=self._members[0].join.host,
                devices=self._welcomed[rank],
            )
            self._send(member.connection, welcome)

    def _begin(self) -> None:
        if self._first_processes is not None or self._ready < self._meeting.size:
            return
        ready = {rank: member.ready for rank, member in self._members.items() if member.ready is not None}
        if not self._meeting.may_share:
            claims = {rank: (self._members[rank].join.host, its.devices) for rank, its in ready.items()}
            try:
                check_claims(claims)
            except MeasureError as error:
                self._refuse_all(str(error))
                return
        self._first_processes, processes = {}, 0
        for rank in sorted(ready):
            self._first_processes[rank] = processes
            processes += ready[rank].processes
        self._wall_minus_monotonic_ns = wall_minus_monotonic()
        for rank, first in self._first_processes.items():
            self._send(self._members[rank].connection, Begin(first_process=first, processes=processes))
        self._to_compare.extend(("before", member) for member in self._others())

    def _open_barriers(self) -> None:
        """One that every rank that still runs has reached."""
        for barrier, reached in self._reached.items():
            if barrier in self._go or reached < self._running:
                continue
            running = [member for member in self._living() if member.ended is None]
            if all(barrier in member.reached for member in running):
                at_ns = time.monotonic_ns() + LEAD_NS + LEAD_NS_OF_A_RANK * self._meeting.size
                self._go[barrier] = at_ns
                for member in running:
                    self._send(member.connection, Go(barrier, at_ns))

    def _compare_ends(self) -> None:
        if not self._ends_are_compared and self._first_processes is not None and self._running == 0:
            self._ends_are_compared = True
            self._wall_minus_monotonic_ns = wall_minus_monotonic()
            self._to_compare.extend(("after", member) for member in self._others() if not member.is_lost)

    def _compare_next(self) -> None:
        while self._to_compare and len(self._comparing) < AT_ONCE:
            position, member = self._to_compare.popleft()
            if not member.is_lost:
                self._comparing[member.join.rank] = position
                self._send(member.connection, Compare(position))

    def _refuse_all(self, text: str) -> None:
        if self._refusal is None and self._first_processes is None:
            self._refusal = text
            for member in self._others():
                self._send(member.connection, Refuse(text))
        self._changed.notify_all()

    def _others(self) -> list[Member]:
        return [member for rank, member in self._members.items() if rank != 0]

    def _living(self) -> list[Member]:
        return [member for member in self._members.values() if not member.is_lost]

    def _hang_up(self) -> None:
        members = [member.connection for member in self._members.values()]
        for connection in [*members, *self._strangers]:
            if connection is not None:
                connection.flush()
                connection.socket.close()
        for end in (self._listener, self._wake, self._waker):
            end.close()
        self._selector.close()


def _seat(join: Join) -> Seat:
    return Seat(join.host, join.local_rank, [device.uuid for device in join.devices])


def _disagreement(members: Sequence[Member]) -> str | None:
    """What the ranks of one job have to have in common, and do not."""
    for what, found in (
        ("llem", {member.join.llem_version: member for member in members}),
        ("plan or command", {member.join.work: member for member in members}),
    ):
        if len(found) > 1:
            one, other, *_ = found.values()
            return f"{one.name} and {other.name} have another {what} than each other"
    return None


def ranks_told(ranks: Sequence[int]) -> str:
    """The numbers in words: rank 3; ranks 3, 5-7."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    told = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"rank {told}" if len(ranks) == 1 else f"ranks {told}"
