"""What the ranks of a job would have if they measured: a rehearsal of their meeting, without a measurement."""

from collections.abc import Sequence

import msgspec

from llem.errors import MeterError
from llem.measure.launch import Rank
from llem.measure.rank_wire import Ended
from llem.measure.rendezvous import Member
from llem.measure.team import team_of
from llem.meters import vendor_of
from llem.plan import Plan
from llem.units import NS_PER_US
from llem_events.events import Device

DONE = Ended(completed=0, has_measured=False)


class RankFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One rank: where it is, the GPUs that it would use, and how well its clock is known against rank 0's."""

    rank: int
    host: str
    local_rank: int | None
    gpus: list[str]
    gpus_seen: int
    claimed_by: list[int]  # other ranks that would use one of these GPUs
    clock_offset_us: float | None  # None of rank 0
    clock_error_us: float | None


def rehearse(rank: Rank) -> list[RankFacts]:
    """What rank 0 knows of all; nothing for any other rank. Raises MeasureError where they do not meet."""
    plan = Plan()
    with team_of(rank, plan, may_share=True) as team:
        seen = _seen(plan)
        own = team.own_devices(seen)
        team.begin(1, own)
        team.end(DONE, should_stop=lambda: False)
        team.sealed()
        return _facts(team.members())


def _seen(plan: Plan) -> Sequence[Device]:
    try:
        return vendor_of(plan, wraps_program=False).resolve_gpus(None)
    except MeterError:
        return []


def _facts(members: Sequence[Member]) -> list[RankFacts]:
    users: dict[tuple[str, str], list[int]] = {}
    for member in members:
        for uuid in member.ready.devices if member.ready else ():
            users.setdefault((member.join.host, uuid), []).append(member.join.rank)
    return [_of(member, users) for member in members]


def _of(member: Member, users: dict[tuple[str, str], list[int]]) -> RankFacts:
    join, clock = member.join, member.clock
    gpus = member.ready.devices if member.ready else []
    others = {other for uuid in gpus for other in users[join.host, uuid]} - {join.rank}
    return RankFacts(
        rank=join.rank,
        host=join.host,
        local_rank=join.local_rank,
        gpus=list(gpus),
        gpus_seen=len(join.devices),
        claimed_by=sorted(others),
        clock_offset_us=clock.offset_ns / NS_PER_US if clock else None,
        clock_error_us=clock.error_ns / NS_PER_US if clock else None,
    )
