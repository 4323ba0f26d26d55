"""Warming up ends when the latencies agree, or at a limit, and says which."""

from collections.abc import Callable, Iterable

from llem.measure.warmup import Cooldown, warm_up
from llem.plan import WindowsPlan
from llem_events.events import Request, WarmupCompleted

NO_COOLDOWN = Cooldown(0.0, None, None)


def batches(latencies_ms: Iterable[float]) -> Callable[[], list[Request]]:
    """Batches of one request of ten tokens with the given latencies per token."""
    left = iter(latencies_ms)

    def run() -> list[Request]:
        end_ns = round(next(left) * 10 * 1_000_000)
        return [
            Request(
                request_id=0, batch_index=0, batch_size=1, arrival_ns=0, start_ns=0, end_ns=end_ns,
                input_tokens=1, output_tokens=10, finish_reason="length",
            )
        ]  # fmt: skip

    return run


def warmed(latencies_ms: Iterable[float], *, stop: bool = False, **limits: float) -> WarmupCompleted:
    plan = WindowsPlan(**limits)  # type: ignore[arg-type] # floats stand for every limit
    return warm_up(plan, batches(latencies_ms), cooldown=NO_COOLDOWN, should_stop=lambda: stop)


def test_steady_latencies_converge_after_the_last_five_agree() -> None:
    """A slow start is forgotten as soon as the last five latencies agree."""
    result = warmed([50, 20, 10, 10, 10, 10, 10, 10])
    assert (result.converged, len(result.latencies_ms)) == (True, 7)
    assert result.coefficient_of_variation == 0.0


def test_unsteady_latencies_end_at_the_limit_of_batches() -> None:
    """Latencies that never agree end at the limit, and the result says so."""
    result = warmed([1, 2] * 10, warmup_max_batches=8)
    assert (result.converged, result.reason) == (False, "warmup_max_batches reached")
    assert len(result.latencies_ms) == 8


def test_time_is_a_limit_too() -> None:
    """A warm-up that has taken too long ends after its batch."""
    result = warmed([1, 2] * 10, warmup_max_s=1e-9)
    assert (len(result.latencies_ms), result.reason) == (1, "warmup_max_s reached")
    assert result.coefficient_of_variation is None


def test_an_interruption_ends_it() -> None:
    """Asked to stop, it ends after the batch at hand."""
    assert warmed([1, 2], stop=True).reason == "interrupted"
