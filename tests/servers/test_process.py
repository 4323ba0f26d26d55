"""A server is ready in three steps, each with its time; where it is not, its own words say why."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llem.errors import MeasureError
from llem.plan import Plan, ServerPlan
from llem.servers import create_server
from llem.servers.address import Address
from llem.servers.process import Awaited, Ready, ServerDiedError, ServerProcess, free_port
from tests.conftest import LIMIT_S, wait_until
from tests.delays import best_of_rounds, delays
from tests.servers.programs import keeper, python, simulated, start

KEY = "sk-" + "a" * 40


def _await(
    process: ServerProcess,
    *,
    tell: Callable[[str], None] = lambda what: None,
    address: Address | None = None,
    **plan: Any,
) -> Ready:
    whole = Plan(server=ServerPlan(kind="simulated", **plan))
    return Awaited(
        create_server(whole),
        whole.server,
        address or process.address,
        check=process.check,
        should_stop=lambda: False,
        tell=tell,
    ).ready()


@best_of_rounds
def test_each_step_has_its_time(tmp_path: Path) -> None:
    """The port is open before the server is well, and it is well before it has answered."""
    with simulated(tmp_path, load_ms=400.0, prefill_ms=100.0) as process:
        ready = _await(process)
    steps = [process.started_ns, ready.port_open_ns, ready.healthy_ns, ready.first_answer_ns]
    assert steps == sorted(steps)
    with delays():  # its port is open before anybody asks
        assert ready.healthy_ns - ready.port_open_ns >= 50_000_000
    assert ready.first_answer_ns - ready.healthy_ns >= 100_000_000
    assert ready.model == "simulated"


def test_a_server_that_dies_is_told_with_its_last_line_without_secrets(tmp_path: Path) -> None:
    """And long before the time that it had."""
    program = f"import sys; print('loading with {KEY}'); sys.exit('error: no weights at {KEY}')"
    begun = time.monotonic()
    with keeper() as kept, pytest.raises(ServerDiedError) as caught:
        _await(start(kept, python(program), tmp_path))
    assert time.monotonic() - begun < LIMIT_S
    assert re.search(r"exit status 1, .*its last line: error: no weights at \*\*\*$", str(caught.value))


def test_the_reason_is_told_beside_the_last_line(tmp_path: Path) -> None:
    """Servers say what went wrong, and then that they end."""
    program = "print('E error loading model: bad magic'); print('cleaning up'); print('exiting'); raise SystemExit(1)"
    with (
        keeper() as kept,
        pytest.raises(ServerDiedError, match=r"last line: E error .* bad magic \.\.\. exiting$"),
    ):
        _await(start(kept, python(program), tmp_path))


def test_a_server_that_never_opens_its_port_is_given_up(tmp_path: Path) -> None:
    """After the time that the plan gives it, with what it waited for."""
    with keeper() as kept, pytest.raises(MeasureError, match=r"after 0\.3 s of waiting for its port to open"):
        _await(start(kept, python("import time; time.sleep(600)"), tmp_path), ready_timeout_s=0.3)


def test_a_server_that_refuses_is_told_with_its_last_line(tmp_path: Path) -> None:
    """Its answer alone rarely says why: that stands in its output."""
    program = "print('OSError: no such model', flush=True); import time; time.sleep(600)"
    refused = MeasureError("it refuses", found="status 500", expected="an answer", hint="try again")
    with keeper() as kept:
        process = start(kept, python(program), tmp_path)
        wait_until(process.last_lines)
        told = process.with_last_line(refused)
    assert str(told) == (
        "it refuses: found status 500, expected an answer; try again; "
        f"its last line: OSError: no such model; all of it: {process.output}"
    )


@best_of_rounds
def test_a_server_that_never_gets_well_is_given_up(tmp_path: Path) -> None:
    """With its own answer."""
    with simulated(tmp_path, load_ms=60_000.0) as process, pytest.raises(MeasureError) as caught:
        _await(process, ready_timeout_s=0.5)
    assert "waiting for it to be well" in str(caught.value)
    with delays():
        assert "status 503" in str(caught.value)


@best_of_rounds
def test_what_is_waited_for_says_what_was_found(tmp_path: Path) -> None:
    """Once, and again when it is another."""
    told: list[str] = []
    with simulated(tmp_path, load_ms=60_000.0) as process, pytest.raises(MeasureError):
        _await(process, tell=told.append, ready_timeout_s=0.5)
    found = [each for each in told if each.startswith("it to be well, found ")]
    with delays():
        assert len(found) == 1 and "status 503" in found[0]


def test_a_server_without_tls_is_not_waited_for(tmp_path: Path) -> None:
    """It will never have any: it takes a greeting for a request, and answers in plain."""
    plain = "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()"
    port = free_port()
    with keeper() as kept, pytest.raises(MeasureError, match="no TLS with the server") as caught:
        process = start(kept, [*python(plain), str(port)], tmp_path, port=port)
        _await(process, address=Address(f"https://127.0.0.1:{port}"), ready_timeout_s=LIMIT_S)
    assert "http:// where it speaks none" in str(caught.value)


def test_a_server_that_fails_its_first_request_is_given_up(tmp_path: Path) -> None:
    """At once: it says that it is well, and is not."""
    with simulated(tmp_path, fail_requests=[1]) as process, pytest.raises(MeasureError) as caught:
        _await(process)
    assert "found status 500: failed as server.simulated.fail_requests asks" in str(caught.value)


def test_a_wait_ends_when_told_to(tmp_path: Path) -> None:
    """Nobody has to wait for a model that loads for an hour."""
    plan = Plan(server=ServerPlan(kind="simulated"))
    with simulated(tmp_path, load_ms=60_000.0) as process, pytest.raises(MeasureError, match="stopped while"):
        Awaited(
            create_server(plan),
            plan.server,
            process.address,
            check=process.check,
            should_stop=lambda: True,
            tell=lambda what: None,
        ).ready()


def test_the_output_of_a_server_is_its_owners_alone(tmp_path: Path) -> None:
    """It may hold prompts."""
    with keeper() as kept:
        start(kept, [sys.executable, "-c", "print('hello')"], tmp_path)
        kept.end(grace_s=LIMIT_S)
        assert (tmp_path / "server.log").stat().st_mode & 0o777 == 0o600
