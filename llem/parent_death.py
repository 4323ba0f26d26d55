"""Becomes another program, after asking the kernel to end it with its parent: python -m llem.parent_death PARENT_PID PROGRAM ..."""

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
CANNOT_RUN = 127  # what a shell says of a program that is not there


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends."""
    # Linux only; elsewhere the closed channel ends the child.
    _ask_kernel(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the kernel was asked


def adopt_orphans() -> None:
    """Ask the kernel to make every process whose parent ends, below this one, a child of this one: none slips away unseen."""
    _ask_kernel(_PR_SET_CHILD_SUBREAPER, 1)


def _ask_kernel(option: int, argument: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def main() -> None:
    """Never returns where the program can be run."""
    parent_pid, *command = sys.argv[1:]
    die_with_parent(int(parent_pid))
    # Python ignores these, and what is ignored stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"llem: {command[0]} cannot be run: {error.strerror}\n")
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
