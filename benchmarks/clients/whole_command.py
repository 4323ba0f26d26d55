"""Runs a command and says what it used with every process that it started: CPU time, and the peak memory of the largest.

    python -S -E whole_command.py RESULT COMMAND ...

A program of its own, small, because the peak of a child begins at its parent's. What the command leaves behind is waited for here and
counts. RESULT gets a line of JSON; the exit status is the command's.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def wait_for_all() -> None:
    """Until no process is left that the command started."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def main() -> int:
    """Run, wait, write."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    result, *command = sys.argv[1:]
    status = subprocess.call(command)
    wait_for_all()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(result, "w", encoding="utf-8") as file:
        json.dump({"cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024}, file)
    return status


if __name__ == "__main__":
    sys.exit(main())
