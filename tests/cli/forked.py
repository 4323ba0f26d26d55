"""Many commands from one process that has loaded everything: each in a fork of its own, on a terminal of its own.

Reads a job a line from stdin, as JSON: folder, arguments, size and environment; answers a line with what was written and the status.
"""

import base64
import importlib
import json
import os
import pty
import sys

from llem.cli import COMMANDS, main
from tests.cli.terminal import Terminal, read_to_the_end, resize


def answer(job: dict[str, object]) -> dict[str, object]:
    """Run one command."""
    pid, controller = pty.fork()
    if pid == 0:
        _be_llem(job)
    terminal = Terminal(job["size"][0])  # type: ignore[index] # a pair
    read_to_the_end(controller, terminal, stop=lambda: os.kill(pid, 9))
    _, status = os.waitpid(pid, 0)
    return {
        "written": base64.b64encode(terminal.written).decode(),
        "status": os.waitstatus_to_exitcode(status),
    }


def _be_llem(job: dict[str, object]) -> None:
    """The fork: the real program, from its first line on."""
    resize(0, job["size"])  # type: ignore[arg-type] # a pair
    os.chdir(job["folder"])  # type: ignore[arg-type] # a path
    os.environ.clear()
    os.environ.update(job["environment"])  # type: ignore[call-overload] # texts
    status = 1
    try:
        main(job["arguments"])  # type: ignore[arg-type] # texts
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    for place, _ in COMMANDS.values():
        importlib.import_module(place.partition(":")[0])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
