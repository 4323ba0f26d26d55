"""How long `llem --help` takes, against an interpreter that only imports typer: the part that is ours is the difference.

Medians of whole processes, run in turn. The ratio is theirs over ours, so that more is better, as everywhere.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15


def seconds(command: list[str]) -> float:
    """Wall time of one process from start to end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Print both medians and their ratio."""
    ours_command = [str(Path(sys.executable).with_name("llem")), "--help"]
    peer_command = [sys.executable, "-c", "import typer"]
    seconds(ours_command), seconds(peer_command)  # the disk's cache is warm for both
    pairs = [(seconds(ours_command), seconds(peer_command)) for _ in range(ROUNDS)]
    ours, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        json.dumps(
            {
                "benchmark": "startup",
                "ours": ours,
                "peer": peer,
                "ratio": peer / ours,
                "unit": "s",
                "n": ROUNDS,
            }
        )
    )


if __name__ == "__main__":
    main()
