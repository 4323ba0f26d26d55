"""How long 4,000 ranks take from their start until all have passed the barrier of the measurement, and how well their clocks are known then.

Rank 0 is a process of its own; all others are threads with the real client, 250 to a process, on one machine, so that the true offset of
every clock is 0. The peer is a bare echo server in the same place that each rank connects to and sends its name; a real job has a
machine for every few ranks, where this one has two cores for all.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import select
import socket
import socketserver
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from llem.measure.rank_member import RankMember
from llem.measure.rank_wire import Ended, Join, Ready
from llem.measure.rendezvous import Meeting, Rendezvous

AT_ONCE = 250  # ranks of one process: more threads would wait for one interpreter, which no real job does
TOKEN = "benchmark"
DONE = Ended(completed=1, has_measured=True)


def join(rank: int, size: int) -> Join:
    """Alike but for the number."""
    return Join(
        token=TOKEN,
        rank=rank,
        size=size,
        host=platform.node(),
        local_rank=rank,
        work="same",
        llem_version="0",
        devices=[],
    )


def lead(size: int, parent: Connection) -> None:
    """Rank 0, in a process of its own; tells its port, then its CPU time."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    rendezvous = Rendezvous(listener, Meeting(experiment_id="e", token=TOKEN, size=size, limit_s=600.0))
    parent.send(listener.getsockname()[1])
    rendezvous.join(join(0, size))
    rendezvous.ready(Ready(processes=1, devices=[]))
    rendezvous.reach("measurement")
    while (at_ns := rendezvous.going_at_ns("measurement")) is None:
        time.sleep(0.01)
    rendezvous.end(DONE)
    rendezvous.close()
    parent.send((at_ns, time.process_time()))


def follow(port: int, rank: int, size: int) -> tuple[int, int, int, int]:
    """A rank's life: offset, bound, when it goes by its own clock, and when it heard of that."""
    member = RankMember([("127.0.0.1", port)], join(rank, size), limit_s=600.0)
    member.join()
    _, offset = member.ready(Ready(processes=1, devices=[]))
    member.reach("measurement")
    told = select.poll()
    told.register(member.wakers()[0], select.POLLIN)
    while (at_ns := member.going_at_ns("measurement")) is None:
        told.poll(10_000)
    heard_ns = time.monotonic_ns()
    member.end(DONE)
    member.sealed()
    member.close()
    return offset.monotonic_ns, offset.error_ns, at_ns, heard_ns


def follow_all(port: int, ranks: range, size: int) -> tuple[list[tuple[int, int, int, int]], float]:
    """The lives of some ranks, and the CPU time of all of them."""
    threading.stack_size(2**18)
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(lambda rank: follow(port, rank, size), ranks)), time.process_time()


class Echo(socketserver.BaseRequestHandler):
    """The peer's server."""

    def handle(self) -> None:
        self.request.sendall(self.request.recv(100))


def peer_s(size: int) -> float:
    """So many connections with a word each way, one after the other."""
    with socketserver.TCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        began = time.monotonic()
        for rank in range(size):
            with socket.create_connection(server.server_address) as connection:
                connection.sendall(str(rank).encode())
                connection.recv(100)
        server.shutdown()
        return time.monotonic() - began


def main() -> None:
    """Print the times, the bounds, and the ratio to the peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=4_000)
    size = parser.parse_args().ranks
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context = multiprocessing.get_context("spawn")
    ours_end, theirs = context.Pipe()
    leader = context.Process(target=lead, args=(size, theirs))
    leader.start()
    port = ours_end.recv()
    some = [range(first, min(first + AT_ONCE, size)) for first in range(1, size, AT_ONCE)]
    with context.Pool(len(some)) as pool:
        pool.map(len, some)  # all processes are there
        began_ns = time.monotonic_ns()
        parts = pool.starmap(follow_all, [(port, ranks, size) for ranks in some], chunksize=1)
    found = [life for lives, _ in parts for life in lives]
    others_cpu_s = sum(cpu_s for _, cpu_s in parts)
    at_ns, leader_cpu_s = ours_end.recv()
    leader.join()
    start_s, whole_s = (at_ns - began_ns) / 1e9, (time.monotonic_ns() - began_ns) / 1e9
    errors_us = sorted(error_ns / 1e3 for _, error_ns, _, _ in found)
    outside = sum(abs(offset_ns) > error_ns for offset_ns, error_ns, _, _ in found)
    late = sum(heard_ns > going_ns for _, _, going_ns, heard_ns in found)
    apart = sum(abs(going_ns - at_ns) > error_ns for _, error_ns, going_ns, _ in found)
    print(f"{size} ranks: {start_s:.1f} s from the first start to the barrier, {whole_s:.1f} s with the end")
    print(
        f"bound of a clock: median {statistics.median(errors_us):.0f} us, p95 {errors_us[int(0.95 * len(errors_us))]:.0f} us, most {errors_us[-1]:.0f} us"
    )
    print(
        f"offsets outside of their bounds: {outside}; moments to go outside of them: {apart}; told too late: {late}"
    )
    print(
        f"CPU time: rank 0 {leader_cpu_s:.1f} s, all others {others_cpu_s:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    peer = peer_s(size)
    print(
        json.dumps(
            {
                "benchmark": "ranks",
                "ours": start_s,
                "peer": peer,
                "ratio": peer / start_s,
                "unit": "s",
                "n": size,
            }
        )
    )


if __name__ == "__main__":
    main()
