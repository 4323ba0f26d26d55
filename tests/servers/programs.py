"""Servers that tests start: small programs that behave as real ones do at their worst."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from llem.plan import Plan, ServerPlan
from llem.process_tree import name_of_living
from llem.servers import HOST, create_server
from llem.servers.address import Address
from llem.servers.base import Launch
from llem.servers.keeper import Keeper
from llem.servers.process import ServerProcess, free_port
from tests.conftest import wait_until

# Starts a child in a session of its own, which ignores SIGTERM as the parent does, and says its process id.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def python(program: str) -> list[str]:
    """A command line that runs it."""
    return [sys.executable, "-c", program]


@contextmanager
def keeper() -> Iterator[Keeper]:
    """One that is let go of at the end."""
    kept = Keeper.start()
    try:
        yield kept
    finally:
        kept.close()


def start(kept: Keeper, argv: list[str], folder: Path, *, port: int | None = None) -> ServerProcess:
    """A process that the keeper runs, its output in the folder."""
    address = Address(f"http://{HOST}:{port or free_port()}")
    output = folder / "server.log"
    return ServerProcess(
        Launch(argv=argv), keeper=kept, address=address, output=output, environment=dict(os.environ)
    )


@contextmanager
def simulated(folder: Path, **times: object) -> Iterator[ServerProcess]:
    """The simulated server with these times, and its keeper."""
    port = free_port()
    plan = Plan(server=msgspec.convert({"kind": "simulated", "simulated": times}, ServerPlan))
    launch = create_server(plan).launch(port=port)
    assert launch is not None
    with keeper() as kept:
        process = start(kept, launch.argv, folder, port=port)
        wait_until(lambda: process.address.is_open(timeout_s=1.0))
        yield process


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    return name_of_living(pid) is not None
