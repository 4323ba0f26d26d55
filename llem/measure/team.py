"""What the supervisor of one rank does together with those of the others; alone, nothing."""

import contextlib
import os
import platform
import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from llem.errors import LlemError, MeasureError
from llem.measure.launch import RENDEZVOUS, Rank, host_and_port, meeting_host
from llem.measure.messages import Barrier
from llem.measure.rank_clock import ClockOffset
from llem.measure.rank_member import RankMember
from llem.measure.rank_wire import Ended, Join, Position, Ready, port_of, token_of
from llem.measure.rendezvous import Meeting, Member, Rendezvous
from llem.plan import Plan
from llem.plan_file import config_hash
from llem.store import new_experiment_id
from llem.versions import __version__
from llem_events.events import ClocksCompared, Device, Event, HostJoined

LIMIT_S = 60.0
FILES_BESIDE = 512  # its own processes, and what else is open
LIMIT_VARIABLE = "LLEM_RENDEZVOUS_S"
SECRET_VARIABLE = "LLEM_RENDEZVOUS_TOKEN"
PORTS = 8  # that are tried, where none is given: others may be taken
LOOPBACK = ("127.0.0.1", "localhost")


class Team(Protocol):
    """All ranks of one experiment, as one of them sees them."""

    rank: Rank | None
    experiment_id: str
    first_process: int
    processes: int  # of all ranks

    @property
    def leads(self) -> bool:
        """Whether this rank opens and closes the experiment."""

    @property
    def has_lost_leader(self) -> bool:
        """Whether rank 0 went away before this rank had ended."""

    def own_devices(self, seen: Sequence[Device]) -> Sequence[Device]:
        """Wait until all ranks are there; which of the GPUs that this one sees are its own. Raises MeasureError."""

    def begin(self, processes: int, devices: Sequence[Device]) -> None:
        """Wait until all ranks are ready for so many processes each. Raises MeasureError."""

    def refuse(self, text: str) -> None:
        """Nobody begins."""

    def events(self) -> list[Event]:
        """What there is to write down at the beginning."""

    def passing_at_ns(self, barrier: Barrier) -> int | None:
        """This rank is at the barrier: when on its own monotonic clock it passes; None while another is missing."""

    def wakers(self) -> list[int]:
        """File descriptors on which somebody may say that a barrier opens."""

    def end(self, ended: Ended, *, should_stop: Callable[[], bool]) -> list[Event]:
        """Wait until all ranks have ended; what there is to write down then."""

    def others(self) -> list[Member]:
        """The other ranks, as rank 0 knows them in the end."""

    def members(self) -> list[Member]:
        """All ranks as rank 0 knows them; none for any other rank."""

    def sealed(self) -> None:
        """The log of this rank is whole."""

    def collect(self, do: Callable[[], None], *, should_stop: Callable[[], bool]) -> None:
        """Bring the log of this rank where all are brought: rank 0 after all others, which begin when all logs are whole."""

    def close(self) -> None:
        """Leave."""


class Alone:
    """A process that no launcher started together with others."""

    def __init__(self) -> None:
        self.rank: Rank | None = None
        self.experiment_id = new_experiment_id()
        self.first_process = self.processes = 0

    @property
    def leads(self) -> bool:
        return self.rank is None or self.rank.leads

    @property
    def has_lost_leader(self) -> bool:
        return False

    def own_devices(self, seen: Sequence[Device]) -> Sequence[Device]:
        return seen

    def begin(self, processes: int, devices: Sequence[Device]) -> None:
        self.processes = processes

    def refuse(self, text: str) -> None:
        """Nobody else is there."""

    def events(self) -> list[Event]:
        return []

    def passing_at_ns(self, barrier: Barrier) -> int | None:
        return 0

    def wakers(self) -> list[int]:
        return []

    def end(self, ended: Ended, *, should_stop: Callable[[], bool]) -> list[Event]:
        return []

    def others(self) -> list[Member]:
        return []

    def members(self) -> list[Member]:
        return []

    def sealed(self) -> None:
        """Nobody waits for it."""

    def collect(self, do: Callable[[], None], *, should_stop: Callable[[], bool]) -> None:
        do()

    def close(self) -> None:
        """Nothing is open."""


class Leader(Alone):
    """Rank 0."""

    def __init__(
        self, rank: Rank, meeting: Meeting, join: Callable[[Sequence[Device]], Join], listener: socket.socket
    ) -> None:
        super().__init__()
        self.rank, self._join = rank, join
        self.experiment_id = meeting.experiment_id
        self._rendezvous = Rendezvous(listener, meeting)
        self._reached: set[Barrier] = set()

    def own_devices(self, seen: Sequence[Device]) -> Sequence[Device]:
        return _among(seen, self._rendezvous.join(self._join(seen)))

    def begin(self, processes: int, devices: Sequence[Device]) -> None:
        begin = self._rendezvous.ready(_ready(processes, devices))
        self.first_process, self.processes = begin.first_process, begin.processes

    def refuse(self, text: str) -> None:
        self._rendezvous.refuse(f"rank 0: {text}")

    def events(self) -> list[Event]:
        assert self.rank is not None
        return [_joined(self.rank)]

    def passing_at_ns(self, barrier: Barrier) -> int | None:
        if barrier not in self._reached:
            self._reached.add(barrier)
            self._rendezvous.reach(barrier)
        return self._rendezvous.going_at_ns(barrier)

    def end(self, ended: Ended, *, should_stop: Callable[[], bool]) -> list[Event]:
        self._rendezvous.end(ended, should_stop=should_stop)
        return []

    def others(self) -> list[Member]:
        return self._rendezvous.others()

    def members(self) -> list[Member]:
        return self._rendezvous.members()

    def collect(self, do: Callable[[], None], *, should_stop: Callable[[], bool]) -> None:
        self._rendezvous.collect(should_stop=should_stop)
        do()

    def close(self) -> None:
        self._rendezvous.close()


class Follower(Alone):
    """Any other rank."""

    def __init__(
        self,
        rank: Rank,
        addresses: Sequence[tuple[str, int]],
        join: Callable[[Sequence[Device]], Join],
        *,
        limit_s: float,
    ) -> None:
        super().__init__()
        self.rank, self._join, self._limit_s, self._addresses = rank, join, limit_s, addresses
        self._member: RankMember | None = None
        self._reached: set[Barrier] = set()
        self._leader_host = ""
        self._events: list[Event] = [_joined(rank)]

    @property
    def has_lost_leader(self) -> bool:
        return self._connected.lost_leader

    def own_devices(self, seen: Sequence[Device]) -> Sequence[Device]:
        self._member = RankMember(self._addresses, self._join(seen), limit_s=self._limit_s)
        welcome = self._member.join()
        self.experiment_id, self._leader_host = welcome.experiment_id, welcome.leader_host
        return _among(seen, welcome.devices)

    def begin(self, processes: int, devices: Sequence[Device]) -> None:
        begin, offset = self._connected.ready(_ready(processes, devices))
        self.first_process, self.processes = begin.first_process, begin.processes
        self._events.append(self._compared("before", offset))

    def refuse(self, text: str) -> None:
        if self._member is not None:
            self._member.refuse(text)

    def events(self) -> list[Event]:
        return self._events

    def passing_at_ns(self, barrier: Barrier) -> int | None:
        if barrier not in self._reached:
            self._reached.add(barrier)
            self._connected.reach(barrier)
        return self._connected.going_at_ns(barrier)

    def wakers(self) -> list[int]:
        return self._connected.wakers()

    def end(self, ended: Ended, *, should_stop: Callable[[], bool]) -> list[Event]:
        offset = self._connected.end(ended, should_stop=should_stop)
        return [] if offset is None else [self._compared("after", offset)]

    def sealed(self) -> None:
        self._connected.sealed()

    def collect(self, do: Callable[[], None], *, should_stop: Callable[[], bool]) -> None:
        self._connected.collect(do)

    def close(self) -> None:
        if self._member is not None:
            self._member.close()

    @property
    def _connected(self) -> RankMember:
        assert self._member is not None
        return self._member

    def _compared(self, position: Position, offset: ClockOffset) -> ClocksCompared:
        assert self.rank is not None
        return ClocksCompared(
            position=position,
            rank=self.rank.rank,
            host=platform.node(),
            reference_host=self._leader_host,
            offset_ns=offset.wall_ns,
            monotonic_offset_ns=offset.monotonic_ns,
            error_ns=offset.error_ns,
            exchanges=offset.exchanges,
        )


@contextmanager
def team_of(
    rank: Rank | None,
    plan: Plan,
    *,
    command: Sequence[str] = (),
    may_share: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Team]:
    """This rank's team for the length of a block. What goes wrong before the beginning is told to the others, so that none waits."""
    team: Team = Alone() if rank is None else _team(rank, plan, command, may_share, environment)
    try:
        yield team
    except LlemError as error:
        team.refuse(str(error))
        raise
    finally:
        team.close()


def _team(
    rank: Rank, plan: Plan, command: Sequence[str], may_share: bool, environment: Mapping[str, str]
) -> Team:
    token = token_of(rank.job_key, environment.get(SECRET_VARIABLE, ""))
    work = config_hash(plan, command)

    def join(devices: Sequence[Device]) -> Join:
        return Join(
            token=token,
            rank=rank.rank,
            size=rank.size,
            host=platform.node(),
            local_rank=rank.local_rank,
            work=work,
            llem_version=__version__,
            devices=list(devices),
        )

    host, port = host_and_port(meeting_host(environment, rank))
    ports = [port_of(rank.job_key, attempt) for attempt in range(PORTS)] if port is None else [port]
    limit_s = _limit_s(environment)
    if not rank.leads:
        return Follower(rank, [(host, each) for each in ports], join, limit_s=limit_s)
    meeting = Meeting(
        experiment_id=new_experiment_id(),
        token=token,
        size=rank.size,
        limit_s=limit_s,
        gpus_per_rank=plan.devices.gpus_per_worker,
        may_share=may_share,
    )
    _make_room(rank.size)
    return Leader(rank, meeting, join, _listener(host, ports))


def _limit_s(environment: Mapping[str, str]) -> float:
    written = environment.get(LIMIT_VARIABLE, "")
    if not written:
        return LIMIT_S
    with contextlib.suppress(ValueError):
        if 0 < (limit_s := float(written)) <= 86_400:
            return limit_s
    raise MeasureError(f"variable {LIMIT_VARIABLE}", found=repr(written), expected="seconds")


def _listener(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket on the first port that is free; seen from this machine alone where all ranks are on it."""
    for port in ports:
        try:
            if host in LOOPBACK:
                return socket.create_server(("127.0.0.1", port), backlog=4096)
            if host == "::1":
                return socket.create_server((host, port), family=socket.AF_INET6, backlog=4096)
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            return socket.create_server(("", port), family=family, backlog=4096, dualstack_ipv6=dual)
        except OSError as error:
            reason = error
    raise MeasureError(
        "rank 0 cannot listen",
        found=f"port {ports[-1]}: {os.strerror(reason.errno or 0)}",
        expected="a free port",
        hint=f"{RENDEZVOUS}=HOST:PORT names one",
    )


def _make_room(ranks: int) -> None:
    """Each rank costs rank 0 an open file. Raises MeasureError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = ranks + FILES_BESIDE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise MeasureError(
            f"open files for {ranks} ranks",
            found=f"a limit of {hard}",
            expected=f"at least {needed}",
            hint=f"ulimit -n {needed} for rank 0",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _among(seen: Sequence[Device], uuids: Sequence[str]) -> list[Device]:
    own = set(uuids)
    return [device for device in seen if device.uuid in own]


def _ready(processes: int, devices: Sequence[Device]) -> Ready:
    return Ready(processes=processes, devices=sorted({device.uuid for device in devices}))


def _joined(rank: Rank) -> HostJoined:
    return HostJoined(
        rank=rank.rank,
        size=rank.size,
        local_rank=rank.local_rank,
        local_size=rank.local_size,
        node_rank=rank.node,
        host=platform.node(),
        launcher=rank.launcher,
        restart=rank.restart,
    )
