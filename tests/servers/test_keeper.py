"""Nothing of a server outlives whoever started it, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llem.errors import MeasureError
from tests.conftest import LIMIT_S, wait_until
from tests.servers.programs import STUBBORN, is_alive, keeper, python, start

HOLDER = """
import os, sys, time
from llem.servers.keeper import Keeper
kept = Keeper.start()
print(kept.launch(sys.argv[1:3] + [sys.argv[3]], environment=dict(os.environ), output=sys.argv[4]), flush=True)
time.sleep(600)
"""


def _grandchild(output: Path) -> int:
    wait_until(lambda: output.exists() and output.read_text().endswith("\n"))
    return int(output.read_text())


def test_what_ignores_a_request_to_end_is_killed_with_its_children(tmp_path: Path) -> None:
    """Also a child that has left the server's group and session."""
    with keeper() as kept:
        server = start(kept, python(STUBBORN), tmp_path)
        grandchild = _grandchild(tmp_path / "server.log")
        assert kept.end(grace_s=0.2).status == -signal.SIGKILL
        assert not is_alive(server.pid) and not is_alive(grandchild)


def test_what_a_dead_server_leaves_behind_is_ended(tmp_path: Path) -> None:
    """Its children become the keeper's."""
    with keeper() as kept:
        server = start(kept, python(STUBBORN), tmp_path)
        grandchild = _grandchild(tmp_path / "server.log")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: kept.ask().status == -signal.SIGKILL)
        assert is_alive(grandchild)
        kept.end(grace_s=0.2)
        assert not is_alive(grandchild)


@pytest.mark.slow
def test_a_server_ends_with_the_process_that_holds_its_keeper(tmp_path: Path) -> None:
    """Killed without a chance to say anything."""
    output = tmp_path / "server.log"
    command = [sys.executable, "-c", HOLDER, *python(STUBBORN), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        server = int(holder.stdout.readline())
        grandchild = _grandchild(output)
        holder.kill()
    wait_until(lambda: not is_alive(server) and not is_alive(grandchild))


def test_a_server_ends_with_its_keeper(tmp_path: Path) -> None:
    """The kernel ends it where the keeper is killed, and whoever held that hears of it."""
    with keeper() as kept:
        server = start(kept, python("import time; time.sleep(600)"), tmp_path)
        assert kept.pid is not None
        os.kill(kept.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(server.pid))
        with pytest.raises(MeasureError, match="keeper of the server is gone"):
            kept.ask()


def test_the_end_of_a_server_is_told(tmp_path: Path) -> None:
    """With the status that it had, and no other server is there before the next is started."""
    with keeper() as kept:
        assert kept.ask().pid is None
        server = start(kept, python("raise SystemExit(7)"), tmp_path)
        wait_until(lambda: kept.ask().status == 7)
        assert kept.end(grace_s=LIMIT_S).status == 7
        with pytest.raises(MeasureError, match="exit status 7"):
            server.check()


def test_a_server_hears_the_request_to_end(tmp_path: Path) -> None:
    """No signal is held back or ignored in it."""
    with keeper() as kept:
        start(kept, python("print('there', flush=True); import time; time.sleep(600)"), tmp_path)
        wait_until(lambda: (tmp_path / "server.log").read_text() == "there\n")
        assert kept.end(grace_s=LIMIT_S).status == -signal.SIGTERM


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """In the server's output, and so in what is told of its end."""
    with keeper() as kept:
        server = start(kept, ["/no/such/server"], tmp_path)
        wait_until(lambda: not kept.ask().is_running)
        with pytest.raises(MeasureError, match="/no/such/server cannot be run: No such file or directory"):
            server.check()
