"""What a server says of itself, as it says it."""

import time
from pathlib import Path

from llem.measure.scraper import Scraper, parse
from llem.servers.address import Address
from llem.servers.process import free_port
from llem.store import open_segment
from llem_events import SegmentReader, unpack
from llem_events.events import ServerMetricsRead
from tests.delays import best_of_rounds, delays
from tests.servers.programs import simulated

PAGE = """
# HELP vllm:tokens_total Count of tokens. 5
# TYPE vllm:tokens_total counter
vllm:tokens_total{model_name="a b",engine="0"} 12.5
plain 3 1700000000000
bucket{le="+Inf"} 7
infinite +Inf
broken line here
text abc
"""


def test_a_page_is_read_line_by_line() -> None:
    """Names keep their labels, comments and what is no metric are left out."""
    assert parse(PAGE) == {
        'vllm:tokens_total{model_name="a b",engine="0"}': 12.5,
        "plain": 3.0,
        'bucket{le="+Inf"}': 7.0,
        "infinite": float("inf"),
    }


def _read(address: Address, path: str | None, folder: Path, *, seconds: float) -> list[ServerMetricsRead]:
    with open_segment(folder, experiment_id="x", role="worker", process_index=0) as log:
        with Scraper(address, path, log) as scraper:
            time.sleep(seconds)
            scraper.read()
        log.seal()
    (file,) = folder.glob("*.events.zst")
    with SegmentReader(file) as reader:
        events = [unpack(envelope) for block in reader.blocks() for envelope in reader.events(block)]
    return [event for event in events if isinstance(event, ServerMetricsRead)]


@best_of_rounds
def test_a_server_is_asked_once_a_second_and_at_the_edges(tmp_path: Path) -> None:
    """Every reading is in the log with the time at which it was made."""
    with simulated(tmp_path) as process:
        events = _read(process.address, "/metrics", tmp_path, seconds=1.3)
    times = [at_ns for event in events for at_ns in event.times_ns]
    with delays():
        assert len(times) == 3
    assert times == sorted(times)
    assert all("simulated:requests_total" in event.names for event in events)
    assert all(len(row) == len(event.times_ns) for event in events for row in event.values)


def test_what_tells_nothing_is_no_failure(tmp_path: Path) -> None:
    """Neither a server without such a page nor one that does not answer."""
    assert _read(Address(f"http://127.0.0.1:{free_port()}"), "/metrics", tmp_path, seconds=0.1) == []
    (folder := tmp_path / "other").mkdir()
    assert _read(Address(f"http://127.0.0.1:{free_port()}"), None, folder, seconds=0.0) == []
