"""The comparison of clients: what it reads of their files, how it pairs them with the server's record, and what it says of them."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare_clients
from benchmarks.clients import aiperf, guidellm, vllm_bench, whole_command
from benchmarks.clients.client import Told, Work
from tests.load.fake_server import Answered

FORMATS = Path(__file__).parent / "importing" / "formats"
WORK = Work("paced", {}, requests=3, tokens=5, in_flight=1, rate_per_s=10)


def answered(read_ms: int) -> Answered:
    """Five tokens, 100 ms after it was read and then one every 10 ms."""
    read_ns = read_ms * 1_000_000
    first_ns = read_ns + 100_000_000
    return Answered(
        digest=0, read_ns=read_ns, first_ns=first_ns, last_ns=first_ns + 40_000_000, tokens=5, first_tokens=1
    )


def told(start: float, **changed: float | None) -> Told:
    """Exactly what the server did."""
    exact = Told(start, ttft_ms=100, itl_ms=10, e2e_ms=140, due_e2e_ms=140, tokens=5)
    return exact._replace(**changed)


def runs_of(*requests: Told, cpu_s: float = 1.0) -> list[compare_clients.Ran]:
    """A run of requests that were sent 100 ms after each other, after one that is no part of it."""
    answers = [answered(read_ms) for read_ms in (900, 1200, 1000, 1100)]
    return [compare_clients.Ran(compare_clients.paired(requests, answers, WORK), cpu_s, 2**20)]


def test_requests_are_paired_in_the_order_in_which_they_were_sent() -> None:
    """What a client asked before its run is left out, and requests were due at the rate from the first on."""
    ((first, second, third),) = (ran.pairs for ran in runs_of(told(3), told(1), told(2)))
    assert [pair.told.start_ns for pair in (first, second, third)] == [1, 2, 3]
    assert [pair.truth.read_ns / 1e6 for pair in (first, second, third)] == [1000, 1100, 1200]
    assert [pair.due_ns / 1e6 for pair in (first, second, third)] == [1000, 1100, 1200]


def test_a_client_that_lost_requests_failed() -> None:
    """Its figures of the others are not compared."""
    with pytest.raises(compare_clients.ClientError, match="2 of 3 requests"):
        runs_of(told(1), told(2))


def test_where_another_client_is_better_is_said() -> None:
    """By more than a tie; what a client does not tell is no figure of it."""
    runs = {
        ("llem", "paced"): runs_of(told(1, ttft_ms=103), told(2, ttft_ms=103), told(3, ttft_ms=103)),
        ("other", "paced"): runs_of(told(1, itl_ms=None), told(2, itl_ms=None), told(3, itl_ms=None)),
    }
    assert list(compare_clients.beaten(runs, ["llem", "other"])) == [
        "paced, TTFT error, ms: other 0, llem 3",
        "paced, TTFT error p99, ms: other 0, llem 3",
    ]
    llem_row, other_row = compare_clients.rows(runs, ["llem", "other"])
    assert llem_row[:6] == ["paced", "llem", "3", "3", "0", "0"]
    assert other_row[:6] == ["paced", "other", "0", "0", "", ""]


def test_files_of_other_clients_are_read(tmp_path: Path) -> None:
    """Nine requests of sixteen tokens, 50 ms and then 10 ms a token, and none of the one that failed."""
    (tmp_path / "aiperf").mkdir()
    shutil.copy(FORMATS / "aiperf" / "profile_export.jsonl", tmp_path / "aiperf")
    (tmp_path / "guidellm.json").write_bytes(
        gzip.decompress((FORMATS / "guidellm" / "benchmarks.json.gz").read_bytes())
    )
    shutil.copy(FORMATS / "vllm" / "openai-chat.json", tmp_path / "vllm.json")
    for client in (aiperf, guidellm, vllm_bench):
        requests = client.read(tmp_path)
        assert [request.tokens for request in requests] == [16] * 9
        assert all(request.ttft_ms is not None and 50 < request.ttft_ms < 100 for request in requests)
        assert all(200 < request.e2e_ms < 300 for request in requests)


def test_a_whole_command_is_all_that_it_started(tmp_path: Path) -> None:
    """A process that its parent leaves behind is waited for, and its CPU time counts."""
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    used = tmp_path / "used.json"
    subprocess.run(
        [sys.executable, "-S", "-E", whole_command.__file__, used, sys.executable, "-c", leaves], check=True
    )
    assert 0.2 <= json.loads(used.read_text())["cpu_s"] < 10
