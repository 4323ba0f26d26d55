"""Which GPUs each rank of a job uses: its own by the order on its machine, and none that another one claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llem.errors import MeasureError


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a rank sits, and the UUIDs of the GPUs that it sees there."""

    host: str
    local_rank: int | None
    uuids: Sequence[str]


def shares(seats: Mapping[int, Seat], *, gpus_per_rank: int) -> dict[int, list[str]]:
    """The GPUs of each rank. Ranks of one machine that see the same ones take theirs in turn, by local rank, where there are enough."""
    return {rank: _share(rank, seat, _neighbours(rank, seats), gpus_per_rank) for rank, seat in seats.items()}


def check_claims(claims: Mapping[int, tuple[str, Sequence[str]]]) -> None:
    """Raises MeasureError where two ranks claim one GPU, a host's name and a UUID: its energy would be that of both."""
    owners: dict[tuple[str, str], int] = {}
    for rank, (host, uuids) in sorted(claims.items()):
        for uuid in uuids:
            owner = owners.setdefault((host, uuid), rank)
            if owner != rank:
                raise MeasureError(
                    "a GPU is claimed twice",
                    found=f"{uuid} of {host} by rank {owner} and rank {rank}",
                    expected="each GPU by one rank",
                    hint="start as many ranks as there are GPUs, or let them share with --share",
                )


def _neighbours(rank: int, seats: Mapping[int, Seat]) -> list[int]:
    """Ranks on the same machine that see the same GPUs, itself included, in their order there."""
    seat = seats[rank]
    alike = [
        other for other, its in seats.items() if its.host == seat.host and set(its.uuids) == set(seat.uuids)
    ]
    return sorted(alike, key=lambda other: (seats[other].local_rank or 0, other))


def _share(rank: int, seat: Seat, neighbours: Sequence[int], gpus_per_rank: int) -> list[str]:
    if len(neighbours) == 1 or len(seat.uuids) < len(neighbours) * gpus_per_rank:
        return list(seat.uuids)
    first = neighbours.index(rank) * gpus_per_rank
    return list(seat.uuids[first : first + gpus_per_rank])
