"""What ended a process, in words."""

import signal
import subprocess

import pytest

from llem.process_tree import ending_signal


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGRTMIN, "SIGRTMIN"),
        (signal.SIGRTMIN + 6, f"signal {signal.SIGRTMIN + 6}"),
    ],
)
def test_whatever_signal_ends_a_process_is_told(number: int, told: str) -> None:
    """Real-time signals, too, of which Python names two."""
    process = subprocess.Popen(["sleep", "60"])
    process.send_signal(number)
    assert ending_signal(process.wait()) == told


def test_a_process_that_ends_by_itself_is_ended_by_no_signal() -> None:
    """Well or not."""
    assert [ending_signal(status) for status in (0, 1, 255)] == [None] * 3
