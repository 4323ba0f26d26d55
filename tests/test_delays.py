"""A round that is late is no failure, one that is wrong is."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import wait_until
from tests.delays import PAUSES_S, LateError, best_of_rounds, delays, lateness


def test_one_round_in_time_is_enough(tmp_path: Path) -> None:
    """Each round finds an empty folder."""
    seen = []

    @best_of_rounds
    def test(tmp_path: Path) -> None:
        assert not list(tmp_path.iterdir())
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        seen.append(1)
        with delays():
            assert len(seen) == 2

    test(tmp_path=tmp_path)
    assert len(seen) == 2


def test_an_error_that_says_that_it_took_too_long_is_late() -> None:
    """No other one is."""
    with pytest.raises(LateError, match="too long"), delays(TimeoutError):
        raise TimeoutError("too long")
    with pytest.raises(OSError, match="lost"), delays(TimeoutError):
        raise OSError("lost")


def test_who_only_sleeps_is_never_early() -> None:
    """So that what is compared with it is never refused for nothing."""
    with lateness() as late_ns:
        wait_until(lambda: len(late_ns) >= 3)
    assert min(late_ns) >= 0


@pytest.mark.parametrize(
    ("raised", "rounds"), [(LateError, 1 + len(PAUSES_S)), (AssertionError, 1), (ValueError, 1)]
)
def test_a_failure_stays_one(raised: type[Exception], rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late in every round, or wrong in one."""
    monkeypatch.setattr("tests.delays.time", SimpleNamespace(sleep=lambda seconds: None))
    seen = []

    @best_of_rounds
    def test() -> None:
        seen.append(1)
        raise raised

    with pytest.raises(raised):
        test()
    assert len(seen) == rounds
