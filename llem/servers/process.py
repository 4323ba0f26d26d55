"""A server from its start to its end: ready in three steps, each with its time, and its own last words where it fails."""

import contextlib
import os
import re
import signal
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from llem.errors import MeasureError
from llem.plan import ServerPlan
from llem.process_tree import ending_signal
from llem.servers.address import Address, Answer
from llem.servers.base import HOST, Launch, Server
from llem.servers.keeper import Keeper, Kept
from llem_events.secrets import scrub

LAST_LINES = 20
_LINE_CHARACTERS = 500
_TAIL_BYTES = 2**15
_STEP_S = 0.02
_SLOWEST_STEP_S = 0.5
_ANSWER_S = 5.0
_BUSY = (429, 503)  # not yet
_OTHER_ENDPOINT = (400, 404, 405, 501)  # completions may not be served where chat is
_REFUSED = (401, 403)
FIRST_TOKENS = 1
_BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # as any connection may be, by a server that starts
# where a server says why it ends, before it says that it does
_ERROR = re.compile(r"(?i)\berror\b.*\w")


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """When a server could do what, and what it calls its model."""

    model: str
    listed: dict[str, Any]  # what it says of that model
    port_open_ns: int
    healthy_ns: int
    first_answer_ns: int


class ServerDiedError(MeasureError):
    """The server has ended, and nobody asked it to."""


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A server that the keeper runs; its output is appended to a file."""

    def __init__(
        self, launch: Launch, *, keeper: Keeper, address: Address, output: Path, environment: dict[str, str]
    ) -> None:
        """Starts it. Raises MeasureError."""
        self._keeper, self.output = keeper, output
        self.address, self.argv = address, launch.argv
        self.started_ns = time.monotonic_ns()
        self.pid = keeper.launch(
            launch.argv, environment=environment | launch.environment, output=str(output)
        )

    @classmethod
    def running(
        cls, *, pid: int, argv: Sequence[str], started_ns: int, keeper: Keeper, address: Address, output: Path
    ) -> Self:
        """One that another started under the same keeper."""
        process = cls.__new__(cls)
        process._keeper, process.output = keeper, output
        process.address, process.argv = address, list(argv)
        process.started_ns, process.pid = started_ns, pid
        return process

    def check(self) -> None:
        """Raises ServerDiedError where it has ended, or nobody keeps it any more."""
        try:
            kept = self._keeper.ask()
        except MeasureError as error:
            raise ServerDiedError(str(error)) from error
        if kept.status is not None:
            raise ServerDiedError(
                "the server ended",
                found=ended_with(kept.status),
                expected="a server that goes on",
                hint=self._said(),
            )

    def end(self, *, grace_s: float) -> Kept:
        """It and all below it have ended when this returns; where its keeper was killed, the kernel has ended it, and its group is killed."""
        try:
            return self._keeper.end(grace_s=grace_s)
        except MeasureError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            return Kept(pid=self.pid)

    def with_last_line(self, error: MeasureError) -> MeasureError:
        """The same error, with what the server said last and where the rest stands."""
        hint = "; ".join(filter(None, (error.hint, self._said(), f"all of it: {self.output}")))
        return MeasureError(error.what, found=error.found, expected=error.expected, hint=hint)

    def last_lines(self) -> list[str]:
        """The end of its output, without secrets."""
        return list(tail(self.output))

    def _said(self) -> str:
        said = [line.strip() for line in self.last_lines() if line.strip()]
        if not said:
            return "it said nothing"
        begun = next((line for line in said if _ERROR.search(line)), said[-1])
        return "its last line: " + " ... ".join(dict.fromkeys([begun, said[-1]]))


def ended_with(status: int) -> str:
    """An exit status in words."""
    ending = ending_signal(status)
    return f"exit status {status}" if ending is None else f"killed by {ending}"


def tail(path: Path) -> Iterator[str]:
    """The last lines of a file, each scrubbed before it is cut."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return
    for line in deque(scrub(text).splitlines(), maxlen=LAST_LINES):
        yield line[:_LINE_CHARACTERS]


class Awaited:
    """Waits for a server to be ready: its port is open, it says that it is well, it has answered a request."""

    def __init__(
        self,
        server: Server,
        plan: ServerPlan,
        address: Address,
        *,
        check: Callable[[], None],
        should_stop: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._server, self._address = server, address
        self._check, self._should_stop, self._tell = check, should_stop, tell
        self._limit_s = plan.ready_timeout_s
        self._deadline = time.monotonic() + plan.ready_timeout_s
        self._last = "nothing"

    def ready(self) -> Ready:
        """Raises MeasureError for a server that dies, refuses, or is not ready in time."""
        port_open_ns = self._until("its port to open", lambda: self._address.is_open(timeout_s=_ANSWER_S))
        healthy_ns = self._until("it to be well", self._is_well)
        listed = self._listed()
        model = self._server.model() or listed.get("id")
        if model is None:
            raise MeasureError(
                "the server does not say which model it has", found=self._last, expected="--model NAME"
            )
        first_answer_ns = self._until("its first answer", lambda: self._has_answered(str(model)))
        return Ready(
            model=str(model),
            listed=listed,
            port_open_ns=port_open_ns,
            healthy_ns=healthy_ns,
            first_answer_ns=first_answer_ns,
        )

    def _until(self, what: str, holds: Callable[[], bool]) -> int:
        self._tell(what)
        step_s, told = _STEP_S, self._last
        while not holds():
            self._check()
            if self._last != told:
                told = self._last
                self._tell(f"{what}, found {told}")
            if self._should_stop():
                raise MeasureError("stopped while waiting for the server")
            if time.monotonic() > self._deadline:
                raise MeasureError(
                    f"the server at {self._address.url} is not ready",
                    found=f"{self._last} after {self._limit_s:g} s of waiting for {what}",
                    expected="an answer",
                    hint="set server.ready_timeout_s higher",
                )
            time.sleep(step_s)
            step_s = min(step_s * 1.3, _SLOWEST_STEP_S)
        return time.monotonic_ns()

    def _is_well(self) -> bool:
        answer = self._asked(lambda: self._address.get(self._server.READY_PATH, timeout_s=_ANSWER_S))
        if answer is not None:
            self._refuse(answer)
        # what has no such path is well once it answers at all
        return answer is not None and (answer.is_good or answer.status in _OTHER_ENDPOINT)

    def _listed(self) -> dict[str, Any]:
        answer = self._asked(lambda: self._address.get("/v1/models", timeout_s=_ANSWER_S))
        models = answer.fields().get("data") if answer is not None else None
        wanted = self._server.model()
        listed = [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        return next((model for model in listed if wanted is None or model.get("id") == wanted), {})

    def _has_answered(self, model: str) -> bool:
        left_s = max(_ANSWER_S, self._deadline - time.monotonic())
        limits = {"model": model, "max_tokens": FIRST_TOKENS}
        texts: Sequence[tuple[str, dict[str, Any]]] = (
            ("/v1/completions", {"prompt": "Hello"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
        )
        for path, asked in texts:
            answer = self._asked(lambda p=path, a=asked: self._address.post(p, limits | a, timeout_s=left_s))  # type: ignore[misc]  # mypy infers no lambda that has defaults
            if answer is None or answer.is_good or answer.status in _BUSY:
                return answer is not None and answer.is_good
            self._refuse(answer)
            if answer.status not in _OTHER_ENDPOINT:
                break
        raise MeasureError(
            f"the server at {self._address.url} refuses a first request",
            found=self._last,
            expected="an answer",
        )

    def _asked(self, ask: Callable[[], Answer]) -> Answer | None:
        try:
            answer = ask()
        except _BROKEN_OFF as error:
            self._last = f"{type(error).__name__}: {error}"
            return None
        except ssl.SSLError as error:
            raise MeasureError(
                f"no TLS with the server at {self._address.url}",
                found=error.verify_message
                if isinstance(error, ssl.SSLCertVerificationError)
                else error.reason,
                expected="a server that speaks it, and a certificate that is trusted",
                hint="http:// where it speaks none; SSL_CERT_FILE=FILE names a certificate to trust",
            ) from error
        except OSError as error:
            self._last = f"{type(error).__name__}: {error}"
            return None
        self._last = scrub(f"status {answer.status}: {answer.said()}")
        return answer

    def _refuse(self, answer: Answer) -> None:
        if answer.status in _REFUSED:
            raise MeasureError(
                f"the server at {self._address.url} refuses us",
                found=self._last,
                expected="a key that it takes",
                hint="name the variable that holds it: --set server.api_key_env=NAME",
            )
