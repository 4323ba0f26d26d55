"""Becomes another program, after asking the kernel to end it with its parent: python -m llem.measure.leash PARENT_PID PROGRAM ..."""

import os
import sys

from llem.measure.children import die_with_parent

CANNOT_RUN = 127


def main() -> None:
    """Never returns where the program can be run."""
    parent_pid, *command = sys.argv[1:]
    die_with_parent(int(parent_pid))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"llem: {command[0]} cannot be run: {error.strerror}\n")
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
