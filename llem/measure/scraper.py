"""What a server says of itself, read once a second by a thread of its own, outside of the load process."""

import re
import threading
import time
from types import TracebackType

from llem.errors import LlemError
from llem.servers import Counters, all_counters
from llem.servers.address import Address
from llem_events import BackgroundWriter, LogWriteError
from llem_events.events import ServerMetricsRead

PATH = "/metrics"
PERIOD_S = 1.0
TIMEOUT_S = 2.0
HELD_READINGS = 5
MAX_METRICS = 10_000
# name{labels} value, and perhaps a time, which is the server's own
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*(?:\{.*\})?)\s+(?P<value>\S+)(?:\s+-?\d+)?$")
Reading = dict[str, float]


def parse(text: str) -> Reading:
    """Every metric of a page in Prometheus' text form, under its name with its labels; a line that is none is left out."""
    found: Reading = {}
    for line in text.splitlines():
        if (match := _LINE.match(line.strip())) and len(found) < MAX_METRICS:
            try:
                found[match["name"]] = float(match["value"])
            except ValueError:
                continue
    return found


def known_counters(address: Address) -> Counters | None:
    """The counters of tokens of a server of which we know nothing, where they are those of one that we know."""
    try:
        answer = address.get(PATH, timeout_s=TIMEOUT_S)
    except (OSError, LlemError):
        return None
    names = {name.partition("{")[0] for name in parse(answer.body.decode(errors="replace"))}
    return next((counters for counters in all_counters() if names.issuperset(counters)), None)


class Scraper:
    """Reads while it is open; a server that has no such page, or does not answer, is asked again a second later."""

    def __init__(self, address: Address, path: str | None, log: BackgroundWriter) -> None:
        self._address, self._path, self._log = address, path, log
        self._held: list[tuple[int, Reading]] = []
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llem-metrics", daemon=True)

    def __enter__(self) -> "Scraper":
        if self._path is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._path is not None:
            self._thread.join()
            with self._guard:
                self._write()

    def read(self) -> None:
        """One reading now, at the edge of a window."""
        if self._path is None:
            return
        try:
            answer = self._address.get(self._path, timeout_s=TIMEOUT_S)
        except (OSError, LlemError):
            return
        reading = parse(answer.body.decode(errors="replace")) if answer.is_good else {}
        if reading:
            with self._guard:
                self._held.append((time.monotonic_ns(), reading))
                if len(self._held) >= HELD_READINGS:
                    self._write()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._ended.wait(max(0.0, due_s - time.monotonic())):
            self.read()
            due_s = max(due_s + PERIOD_S, time.monotonic())

    def _write(self) -> None:
        """What is held, as one event; a log that is closed takes no more."""
        held, self._held = self._held, []
        if not held:
            return
        names = sorted(set().union(*(reading for _, reading in held)))
        event = ServerMetricsRead(
            names=names,
            times_ns=[at_ns for at_ns, _ in held],
            values=[[_finite(reading.get(name)) for _, reading in held] for name in names],
        )
        try:
            self._log.append(event, at_ns=held[0][0])
        except LogWriteError:
            return


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None
