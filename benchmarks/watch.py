"""What watching costs beside a measurement: `llem watch` on a terminal of 80 x 24, its CPU time a second and how old the newest sample on it is.

Its peer is rich.live, which draws the same last picture as often in a process that does nothing else. Start and first look are left out of both.

    python -m benchmarks.watch [--seconds 20] [--workers 1]
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cli.terminal import Terminal

LLEM = (sys.executable, "-c", "import llem.cli; llem.cli.main()")
STARTING_S, SETTLING_S = 5.0, 3.0
AGE = re.compile(rb"newest sample ([\d.]+) s old")
RICH = """
import sys, time
from rich.console import Console
from rich.live import Live
text = open(sys.argv[1]).read()
with Live(text, console=Console(force_terminal=True), auto_refresh=False) as live:
    while True:
        time.sleep(float(sys.argv[2]))
        live.update(text + str(time.time()), refresh=True)
"""


class Screen:
    """A process on a terminal of its own, and what it has written there."""

    def __init__(self, arguments: list[str]) -> None:
        self.terminal = Terminal(80)
        controller, descriptor = pty.openpty()
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            arguments, stdin=descriptor, stdout=descriptor, stderr=descriptor, env=environment
        )
        os.close(descriptor)
        threading.Thread(target=self._read, args=[controller], daemon=True).start()

    def _read(self, controller: int) -> None:
        with suppress(OSError):
            while chunk := os.read(controller, 65536):
                self.terminal.feed(chunk)

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def ms_per_s(self, seconds: float) -> float:
        """CPU time in each second of the next ones."""
        before, started = self.cpu_s(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu_s() - before) * 1000 / (time.monotonic() - started)


@contextmanager
def measuring(store: Path, *, seconds: float, workers: int) -> Iterator[None]:
    """A measurement on the simulated engine and meter, with 100 samples a second of each worker."""
    settings = (f"workload.min_duration_s={seconds}", "windows.baseline_s=0.5", f"devices.workers={workers}")
    words = [word for setting in settings for word in ("--set", setting)]
    arguments = [
        *LLEM,
        *("measure", "--engine", "simulated", "--meter", "simulated", "--store", str(store), *words),
    ]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(STARTING_S)
        yield
        process.terminate()


def main() -> None:
    """Watch one measurement, then draw its last picture with rich."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        long_s = options.seconds + STARTING_S + SETTLING_S + 60
        with measuring(store, seconds=long_s, workers=options.workers):
            ours = Screen([*LLEM, "watch", "--store", str(store)])
            time.sleep(SETTLING_S)
            ours.terminal.written = b""
            ours_ms, rss_mb = ours.ms_per_s(options.seconds), ours.rss_mb()
            ages_s = [float(age) for age in AGE.findall(ours.terminal.written)]
            ours.process.terminate()
        picture = Path(folder) / "picture"
        picture.write_text("\n".join(ours.terminal.lines()))
        peer = Screen([sys.executable, "-c", RICH, str(picture), str(options.seconds / len(ages_s))])
        time.sleep(SETTLING_S)
        peer_ms = peer.ms_per_s(options.seconds / 2)
        peer.process.terminate()
    print(f"watch      {ours_ms:6.1f} ms of CPU time a second, {rss_mb:.0f} MB, {len(ages_s)} pictures")
    print(f"rich.live  {peer_ms:6.1f} ms a second for as many pictures and no log")
    print(f"ratio      {peer_ms / ours_ms:6.2f}")
    print(
        f"newest sample on a picture: at most {max(ages_s):.1f} s old, {sum(ages_s) / len(ages_s):.2f} s in the mean"
    )


if __name__ == "__main__":
    main()
