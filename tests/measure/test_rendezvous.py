"""Ranks meet, begin, pass barriers and end together, over real sockets of this machine."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from llem.errors import MeasureError
from llem.measure.rank_member import RankMember, RefusedError
from llem.measure.rank_wire import Ended, Join, Ready, packed
from llem.measure.rendezvous import Meeting, Rendezvous, ranks_told
from llem_events.events import Device
from tests.conftest import LIMIT_S, wait_until
from tests.delays import best_of_rounds, delays

DONE = Ended(completed=1, has_measured=True)


def joining(rank: int, size: int, *, token: str = "t", work: str = "w", gpus: tuple[str, ...] = ()) -> Join:
    devices = [
        Device(host="h", uuid=uuid, index=index, name="gpu", kind="gpu") for index, uuid in enumerate(gpus)
    ]
    return Join(
        token=token,
        rank=rank,
        size=size,
        host="h",
        local_rank=rank,
        work=work,
        llem_version="1",
        devices=devices,
    )


@contextmanager
def meeting(size: int, *, limit_s: float = LIMIT_S, share: bool = False) -> Iterator[tuple[Rendezvous, int]]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    terms = Meeting(experiment_id="e", token="t", size=size, limit_s=limit_s, may_share=share)
    rendezvous = Rendezvous(listener, terms)
    try:
        yield rendezvous, port
    finally:
        rendezvous.close()


OPENED: list[RankMember] = []


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def member(port: int, join: Join, *, limit_s: float = LIMIT_S) -> RankMember:
    OPENED.append(RankMember([("127.0.0.1", port)], join, limit_s=limit_s))
    return OPENED[-1]


def one_life(port: int, join: Join) -> tuple[int, int, int]:
    """Index of the first process, moment of the measurement's barrier, and bound of the clock."""
    this = member(port, join)
    try:
        this.join()
        begin, offset = this.ready(Ready(processes=2, devices=[]))
        this.reach("measurement")
        while (at_ns := this.going_at_ns("measurement")) is None:
            time.sleep(0.01)
        assert this.end(DONE) is not None
        this.sealed()
        return begin.first_process, at_ns, offset.error_ns
    finally:
        this.close()


def lead(rendezvous: Rendezvous, size: int) -> int:
    """Rank 0's life; the moment of the barrier."""
    rendezvous.join(joining(0, size))
    rendezvous.ready(Ready(processes=2, devices=[]))
    rendezvous.reach("measurement")
    while (at_ns := rendezvous.going_at_ns("measurement")) is None:
        time.sleep(0.01)
    rendezvous.end(DONE)
    return at_ns


def test_ranks_pass_a_barrier_at_one_moment() -> None:
    """Each has the next indices of processes, and its own clock's name for the moment at which all go is within its bound of rank 0's."""
    with meeting(4) as (rendezvous, port), ThreadPoolExecutor(4) as pool:
        lives = [pool.submit(one_life, port, joining(rank, 4)) for rank in (1, 2, 3)]
        at_ns = lead(rendezvous, 4)
        found = [life.result() for life in lives]
        assert [first for first, _, _ in found] == [2, 4, 6]
        assert all(abs(moment - at_ns) <= error_ns for _, moment, error_ns in found)
        assert rendezvous.processes == 8
        assert all(other.ended == DONE and not other.is_lost for other in rendezvous.others())


def refused(started: Callable[[], object]) -> str:
    with pytest.raises(MeasureError) as caught:
        started()
    return str(caught.value)


@best_of_rounds
def test_a_rank_that_does_not_come_is_named() -> None:
    """After the limit rank 0 and everybody who came hear who is missing."""
    with meeting(4, limit_s=0.5) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(refused, member(port, joining(2, 4)).join)
        missed, told = refused(lambda: rendezvous.join(joining(0, 4))), waiting.result()
    with delays():
        assert "ranks 1, 3 did not come within 0.5 s" in missed
        assert "ranks 1, 3 did not come" in told


@best_of_rounds
def test_another_job_is_turned_away() -> None:
    """Who shows another token, or a rank that is there already, is told so and never taken in."""
    with meeting(3) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        pool.submit(refused, member(port, joining(1, 3)).join)
        wait_until(rendezvous.members)
        stranger = refused(member(port, joining(2, 3, token="other"), limit_s=0.3).join)
        double = refused(member(port, joining(1, 3), limit_s=0.3).join)
        assert [here.join.rank for here in rendezvous.members()] == [1]
        rendezvous.refuse("enough")
    with delays():
        assert "another job" in stranger
        assert "here already" in double


def test_noise_harms_nobody() -> None:
    """What is no message ends that connection alone."""
    with meeting(2) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, packed(Ready(processes=1, devices=[]))):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(noise)
                stranger.settimeout(LIMIT_S)
                with suppress(ConnectionResetError):
                    assert stranger.recv(100) == b""
        life = pool.submit(one_life, port, joining(1, 2))
        lead(rendezvous, 2)
        assert life.result()[0] == 2


def test_ranks_that_measure_different_things_are_refused() -> None:
    """One job has one plan."""
    with meeting(2) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        other = pool.submit(refused, member(port, joining(1, 2, work="another")).join)
        assert "another plan or command" in refused(lambda: rendezvous.join(joining(0, 2)))
        assert "another plan or command" in other.result()


@pytest.mark.parametrize("share", [False, True])
def test_a_gpu_is_claimed_by_one_rank_unless_ranks_share(share: bool) -> None:
    """Two ranks that see one GPU are refused before anything begins, each hearing why."""
    with meeting(2, share=share) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        other = member(port, joining(1, 2, gpus=("G0",)))
        come = pool.submit(other.join)
        assert rendezvous.join(joining(0, 2, gpus=("G0",))) == ["G0"]
        assert come.result().devices == ["G0"]
        ready = Ready(processes=1, devices=["G0"])
        if share:
            begun = pool.submit(other.ready, ready)
            assert rendezvous.ready(ready).processes == 2
            assert begun.result()[0].first_process == 1
            return
        begun_not = pool.submit(refused, lambda: other.ready(ready))
        told = refused(lambda: rendezvous.ready(ready))
        assert "G0 of h by rank 0 and rank 1" in told
        assert begun_not.result() == told


def test_ranks_of_a_machine_take_its_gpus_in_turn() -> None:
    """Where all see the same ones, the second rank has the second."""
    gpus = ("G0", "G1")
    with meeting(2) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        come = pool.submit(member(port, joining(1, 2, gpus=gpus)).join)
        assert rendezvous.join(joining(0, 2, gpus=gpus)) == ["G0"]
        assert come.result().devices == ["G1"]


def test_a_rank_lost_before_the_beginning_lets_nobody_begin() -> None:
    """Rank 0 names it."""
    with meeting(2) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        other = member(port, joining(1, 2))
        come = pool.submit(other.join)
        rendezvous.join(joining(0, 2))
        come.result()
        other.close()
        told = refused(lambda: rendezvous.ready(Ready(processes=1, devices=[])))
        assert told == "rank 1 on h was lost before the beginning"


def test_a_rank_that_cannot_begin_tells_all() -> None:
    """Its reason ends the wait of the others."""
    with meeting(2) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        other = member(port, joining(1, 2))
        come = pool.submit(other.join)
        rendezvous.join(joining(0, 2))
        come.result()
        other.refuse("no such model")
        assert (
            refused(lambda: rendezvous.ready(Ready(processes=1, devices=[]))) == "rank 1 on h: no such model"
        )


@best_of_rounds
def test_a_rank_that_never_compares_its_clock_is_not_waited_for_without_end() -> None:
    """It is there and ready, and stands still."""
    with meeting(2, limit_s=1.0) as (rendezvous, port), socket.create_connection(("127.0.0.1", port)) as end:
        end.sendall(packed(joining(1, 2)) + packed(Ready(processes=1, devices=[])))
        with delays(MeasureError):
            rendezvous.join(joining(0, 2))
        told = refused(lambda: rendezvous.ready(Ready(processes=1, devices=[])))
        with delays():
            assert told.startswith("rank 1 did not compare its clock with rank 0's within 1 s; ")
        assert "LLEM_RENDEZVOUS_S" in told


def test_a_rank_lost_later_is_waited_for_no_more() -> None:
    """The others pass the next barrier and end; rank 0 knows who is missing."""
    with meeting(3) as (rendezvous, port), ThreadPoolExecutor(2) as pool:
        lost = member(port, joining(2, 3))
        life = pool.submit(one_life, port, joining(1, 3))
        come = pool.submit(lambda: (lost.join(), lost.ready(Ready(processes=2, devices=[]))))
        rendezvous.join(joining(0, 3))
        rendezvous.ready(Ready(processes=2, devices=[]))
        come.result()
        lost.close()
        rendezvous.reach("measurement")
        while rendezvous.going_at_ns("measurement") is None:
            time.sleep(0.01)
        rendezvous.end(DONE)
        life.result()
        assert [other.join.rank for other in rendezvous.others() if other.is_lost] == [2]


def test_a_rank_0_that_dies_keeps_nobody_waiting() -> None:
    """A rank passes its barriers alone and ends without a comparison of clocks."""
    with meeting(2) as (rendezvous, port), ThreadPoolExecutor(1) as pool:
        other = member(port, joining(1, 2))
        begun = pool.submit(lambda: (other.join(), other.ready(Ready(processes=1, devices=[]))))
        rendezvous.join(joining(0, 2))
        rendezvous.ready(Ready(processes=1, devices=[]))
        begun.result()
        rendezvous.close()
        other.reach("measurement")
        while other.going_at_ns("measurement") is None:
            time.sleep(0.01)
        assert other.end(DONE) is None


def test_nobody_at_the_place_to_meet_is_told() -> None:
    """A rank says where it looked for rank 0, and for how long."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    told = refused(member(port, joining(1, 2), limit_s=0.3).join)
    assert f"at 127.0.0.1, port {port}, within 0.3 s: found Connection refused" in told


def test_a_refusal_is_an_error_that_rank_0_tells() -> None:
    """So that it is said once, by rank 0."""
    assert issubclass(RefusedError, MeasureError)


@pytest.mark.parametrize(
    ("ranks", "told"), [([3], "rank 3"), ([5, 3, 6, 7], "ranks 3, 5-7"), ([0, 1], "ranks 0-1")]
)
def test_ranks_are_named_in_short(ranks: list[int], told: str) -> None:
    """Runs of numbers stand as first and last."""
    assert ranks_told(ranks) == told


@pytest.mark.slow
def test_two_hundred_ranks_start_together() -> None:
    """Each is within its bound of the moment at which all go."""
    threading.stack_size(2**18)
    try:
        with meeting(200) as (rendezvous, port), ThreadPoolExecutor(199) as pool:
            lives = [pool.submit(one_life, port, joining(rank, 200)) for rank in range(1, 200)]
            at_ns = lead(rendezvous, 200)
            found = [life.result() for life in lives]
    finally:
        threading.stack_size(0)
    assert sorted(first for first, _, _ in found) == list(range(2, 400, 2))
    assert all(abs(moment - at_ns) <= error_ns for _, moment, error_ns in found)
