"""Who listens at an address of this machine, and which processes belong to it."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

from llem.process_tree import descendants, stat_of
from llem.servers.address import Address

_PROC = Path("/proc")
_LISTEN = "0A"
_PPID = 1
_STATE, _LOCAL, _INODE = 3, 1, 9


def listening_pid(address: Address, *, proc: Path = _PROC) -> int | None:
    """The first process that listens there: the server's own, or a child that has its socket. None where that cannot be known."""
    if not is_local(address.host):
        return None
    inodes = {f"socket:[{inode}]" for inode in _inodes(address.port, proc)}
    holders = [pid for pid in _pids(proc) if inodes and _holds(pid, inodes, proc)]
    return min(holders, default=None)


def is_local(host: str) -> bool:
    """Whether it is this machine by one of its addresses."""
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(_is_ours(str(address)) for address in addresses)


def _is_ours(address: str) -> bool:
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[_STATE] == _LISTEN and int(fields[_LOCAL].rpartition(":")[2], 16) == port:
                yield fields[_INODE]


def _pids(proc: Path) -> list[int]:
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _holds(pid: int, links: set[str], proc: Path) -> bool:
    try:
        for descriptor in (proc / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) in links:
                    return True
    except OSError:
        pass  # it has ended, or is another user's
    return False


def family_of(pid: int, *, proc: Path = _PROC) -> set[int]:
    """The process and all below it; of a server that a keeper runs, also what it started and left behind."""
    stat = stat_of(pid, proc)
    parent = stat[_PPID] if stat else None
    if parent is not None and _is_keeper(parent, proc):
        return descendants(parent, proc=proc) - {parent}
    return descendants(pid, proc=proc)


def _is_keeper(pid: int, proc: Path) -> bool:
    try:
        return b"llem.servers.keeper" in (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
