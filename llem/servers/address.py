"""The address of a server: a question and its answer at a time, outside of any load."""

import http.client
import os
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llem.errors import MeasureError, PlanError

MAX_ANSWER_BYTES = 2**24
_PORTS = {"http": 80, "https": 443}


class Answer(msgspec.Struct, frozen=True):
    """Status and body of an answer."""

    status: int
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def fields(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return {}

    def said(self) -> str:
        """What it says of an error, on one line."""
        error = self.fields().get("error", self.fields().get("detail"))
        text = error.get("message") if isinstance(error, dict) else error
        words = str(text or self.body[:_SHOWN_BYTES].decode(errors="replace")).split()
        return " ".join(words)[:_SHOWN_BYTES] or "nothing"


_SHOWN_BYTES = 300


class Address:
    """scheme://host:port, with or without a path below which the server's own begin."""

    def __init__(self, url: str, *, api_key_env: str | None = None) -> None:
        """Raises PlanError for what is no address of HTTP."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise _no_address(url, error) from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.username:
            raise _no_address(url, None)
        self.host, self.port = parts.hostname, port or _PORTS[parts.scheme]
        self._scheme, self._api_key_env = parts.scheme, api_key_env
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        named = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{self._scheme}://{named}:{self.port}{self._path}"

    def is_open(self, *, timeout_s: float) -> bool:
        """Whether anything listens there."""
        try:
            socket.create_connection((self.host, self.port), timeout=timeout_s).close()
        except OSError:
            return False
        return True

    def get(self, path: str, *, timeout_s: float) -> Answer:
        """Raises OSError where there is no answer."""
        return self._ask("GET", path, None, timeout_s)

    def post(self, path: str, fields: dict[str, Any], *, timeout_s: float) -> Answer:
        """Raises OSError where there is no answer."""
        return self._ask("POST", path, msgspec.json.encode(fields), timeout_s)

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Answer:
        connection = self._connection(timeout_s)
        try:
            connection.request(method, self._path + path, body, self._headers(body))
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(MAX_ANSWER_BYTES))
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._api_key_env is not None:
            headers["Authorization"] = f"Bearer {api_key(self._api_key_env)}"
        return headers


def api_key(variable: str) -> str:
    """The key in a variable of the environment, which is never shown. Raises MeasureError where there is none that a header takes."""
    if variable not in os.environ:
        raise MeasureError("server.api_key_env", found=f"no variable {variable}", expected="the key in it")
    # a file from which a key is read ends with a line break
    key = os.environ[variable].strip()
    if not key or not key.isascii() or not key.isprintable():
        raise MeasureError(
            f"the key in {variable}",
            found="nothing" if not key else "a line break, or another character that no header takes",
            expected="the key alone, on one line",
        )
    return key


def _no_address(url: str, error: ValueError | None) -> PlanError:
    return PlanError(
        "plan key server.url", found=error or repr(url), expected="an address such as http://127.0.0.1:8000"
    )
