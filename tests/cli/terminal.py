"""A terminal of a chosen size: llem runs in a pseudo-terminal, and an emulator says what a person sees."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyte

from tests.conftest import LIMIT_S, LLEM
from tests.forked import ForkedLlem

READ_BYTES = 65536
Size = tuple[int, int]  # columns and lines
TALL = 2000  # lines kept, as by a terminal that can be scrolled back


class Terminal:
    """What llem has written to a terminal, as bytes and as a screen."""

    def __init__(self, columns: int) -> None:
        self.screen = pyte.Screen(columns, TALL)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""

    def feed(self, chunk: bytes) -> None:
        """Show what was written."""
        self.written += chunk
        self._stream.feed(chunk)

    def resize(self, columns: int) -> None:
        """Make it narrower or wider; what has been drawn is cut, not folded anew."""
        self.screen.resize(TALL, columns)

    def lines(self) -> list[str]:
        """The text, without spaces at the ends of lines and without empty lines at the end."""
        # `display` draws all of them, which takes longer than most commands; the right half of a wide character is empty here
        drawn = range(max(self.screen.buffer, default=-1) + 1)
        columns = range(self.screen.columns)
        lines = [
            "".join(self.screen.buffer[line][place].data for place in columns).rstrip() for line in drawn
        ]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def styles(self, line: int) -> str:
        """A letter below each character that is not plain: b bold, i italic, u underlined, r reversed, c coloured."""
        cells = self.screen.buffer[line]
        return "".join(_style(cells[place]) for place in range(self.screen.columns)).rstrip()


def on_a_terminal(
    arguments: Sequence[object],
    *,
    size: Size = (80, 24),
    environment: Mapping[str, str],
    folder: Path | None = None,
    forked: ForkedLlem | None = None,
    while_running: Callable[[Terminal, int], None] = lambda terminal, descriptor: None,
) -> tuple[Terminal, int]:
    """Run llem, forked or as a whole program, with all three standard streams on one terminal; its screen and its exit status."""
    controller, descriptor = pty.openpty()
    resize(descriptor, size)
    terminal = Terminal(size[0])
    if forked is not None:
        streams = (descriptor, descriptor, descriptor)
        forked.start(arguments, streams=streams, environment=environment, folder=folder)
        os.close(descriptor)
        _read_to_the_end(controller, terminal, while_running, stop=forked.close)
        return terminal, forked.status()
    with subprocess.Popen(
        [LLEM, *map(str, arguments)],
        stdin=descriptor,
        stdout=descriptor,
        stderr=descriptor,
        env=environment,
        cwd=folder,
        start_new_session=True,
    ) as process:
        os.close(descriptor)
        _read_to_the_end(controller, terminal, while_running, stop=process.kill)
    return terminal, process.returncode


def _read_to_the_end(
    controller: int,
    terminal: Terminal,
    while_running: Callable[[Terminal, int], None],
    *,
    stop: Callable[[], None],
) -> None:
    """Show all that is written to the terminal, and close it; whoever takes too long is stopped."""
    deadline = time.monotonic() + LIMIT_S
    while (chunk := _read(controller)) != b"":
        terminal.feed(chunk or b"")
        while_running(terminal, controller)
        if time.monotonic() > deadline:
            stop()
    os.close(controller)


def resize(descriptor: int, size: Size) -> None:
    """Give a terminal another size; who runs in it gets SIGWINCH from the kernel."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))


def _read(descriptor: int) -> bytes | None:
    """What can be read; None for nothing yet, and nothing at the terminal's end (EIO on Linux)."""
    if not select.select([descriptor], [], [], 0.1)[0]:
        return None
    with suppress(OSError):
        return os.read(descriptor, READ_BYTES)
    return b""


def _style(cell: pyte.screens.Char) -> str:
    kinds = {
        "b": cell.bold,
        "i": cell.italics,
        "u": cell.underscore,
        "r": cell.reverse,
        "c": cell.fg != "default" or cell.bg != "default",
    }
    styles = [letter for letter, is_so in kinds.items() if is_so and cell.data.strip()]
    return styles[0] if len(styles) == 1 else "*" if styles else " "
