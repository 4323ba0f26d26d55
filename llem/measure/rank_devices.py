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
    alike: dict[tuple[str, frozenset[str]], list[int]] = {}
    for rank, seat in seats.items():
        alike.setdefault((seat.host, frozenset(seat.uuids)), []).append(rank)
    found: dict[int, list[str]] = {}
    for neighbours in alike.values():
        neighbours.sort(key=lambda rank: (seats[rank].local_rank or 0, rank))
        for place, rank in enumerate(neighbours):
            found[rank] = _share(seats[rank].uuids, place, len(neighbours), gpus_per_rank)
    return found


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


def _share(uuids: Sequence[str], place: int, neighbours: int, gpus_per_rank: int) -> list[str]:
    if neighbours == 1 or len(uuids) < neighbours * gpus_per_rank:
        return list(uuids)
    first = place * gpus_per_rank
    return list(uuids[first : first + gpus_per_rank])
