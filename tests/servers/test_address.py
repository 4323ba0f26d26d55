"""The address of a server, and who listens there."""

import subprocess
import sys
from pathlib import Path

import pytest

from llem.errors import MeasureError, PlanError
from llem.servers.address import Address, Answer, api_key
from llem.servers.listening import family_of, is_local, listening_pid
from llem.servers.process import free_port
from tests.conftest import wait_until
from tests.servers.programs import keeper, python, simulated, start

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://host/llm/v1", "https://host:443/llm"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_may_be_written_in_several_ways(written: str, meant: str) -> None:
    """With and without a scheme, with and without the version's path."""
    assert Address(written).url == meant


@pytest.mark.parametrize(
    "written", ["", "ftp://host", "http://", "http://host:99999", "http://me:secret@host", "http://host/?a=b"]
)
def test_what_is_no_address_is_refused(written: str) -> None:
    """Before anything is asked."""
    with pytest.raises(PlanError, match=r"server\.url"):
        Address(written)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (b'{"error": "busy"}', "busy"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"<html>\n bad gateway </html>", "<html> bad gateway </html>"),
        (b"", "nothing"),
    ],
)
def test_what_a_server_says_of_an_error_is_one_line(body: bytes, said: str) -> None:
    """However it is put."""
    assert Answer(500, body).said() == said


def test_a_key_that_is_not_there_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is there is never shown."""
    with pytest.raises(MeasureError, match="no variable NO_SUCH_KEY"):
        api_key("NO_SUCH_KEY")
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    assert api_key("SOME_KEY") == "sk-secret"


@pytest.mark.parametrize("key", ["", " \n", "sk-secret\nHost: other", "sk-sécret", "sk-\x07"])
def test_a_key_that_no_header_takes_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """At once, and not after all the time that the server had; a line break at its end is that of a file."""
    monkeypatch.setenv("SOME_KEY", "sk-secret\n")
    assert api_key("SOME_KEY") == "sk-secret"
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(MeasureError, match=r"^the key in SOME_KEY: found ") as caught:
        api_key("SOME_KEY")
    assert "sk-" not in str(caught.value)


def test_who_listens_is_found(tmp_path: Path) -> None:
    """The process that has the port, and nobody at a port that is free."""
    with simulated(tmp_path) as process:
        assert listening_pid(process.address) == process.pid
    assert listening_pid(Address(f"http://127.0.0.1:{free_port()}")) is None


def test_only_addresses_of_this_machine_are_local() -> None:
    """192.0.2.0/24 belongs to nobody."""
    assert is_local("127.0.0.1") and is_local("localhost")
    assert not is_local("192.0.2.1")


def test_a_family_is_the_process_and_all_below_it(tmp_path: Path) -> None:
    """Of a kept server also what it left behind; of another nothing that is beside it."""
    with keeper() as kept:
        server = start(kept, python(PARENT), tmp_path)
        wait_until(lambda: (tmp_path / "server.log").read_text().endswith("\n"))
        child = int((tmp_path / "server.log").read_text())
        assert family_of(server.pid) == {server.pid, child}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert family_of(other.pid) == {other.pid}
        other.kill()
