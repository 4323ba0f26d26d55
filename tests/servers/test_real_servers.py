"""Servers that people run, with models that are made here: what they stream, what they say of it, and what their counters say is the same."""

import importlib.util
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.plan import Plan, ServerPlan
from llem.process_tree import name_of_living
from llem.servers import create_server
from llem.servers.process import Awaited, free_port
from tests.conftest import Run, events_of
from tests.servers import tiny_gguf, tiny_llama
from tests.servers.programs import keeper, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
METERED = ("--meter", "simulated", "--set", "windows.baseline_s=0.5", "--set", "windows.baseline_after_s=0.2")


def _needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"the extra serving is not installed: no {', '.join(missing)}"
    )


needs_llamacpp = _needs("xllamacpp", "gguf")
needs_transformers = _needs("torch", "transformers", "fastapi", "uvicorn", "openai")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for llama.cpp."""
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for transformers."""
    return tiny_llama.write(tmp_path_factory.mktemp("llama"))


def _rows(llem: Run, sql: str) -> list[dict[str, Any]]:
    done = llem("query", sql, "-f", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = msgspec.json.decode(done.stdout)
    return rows


_TOKENS = """
SELECT count(*) AS requests, count(error) AS errors, sum(output_tokens)::BIGINT AS streamed, sum(usage_output_tokens)::BIGINT AS used,
       sum(input_tokens)::BIGINT AS asked, sum(usage_input_tokens)::BIGINT AS read
FROM requests WHERE window_kind = 'measurement'
"""


def _counted(store: Path, llem: Run, name: str) -> float:
    """What a counter of the server rose by from the last reading before the window to the first after it."""
    (opened, closed) = (
        _rows(
            llem, f"SELECT at_ns FROM events WHERE type = 'window_{end}' AND body ->> 'kind' = 'measurement'"
        )[0]["at_ns"]
        for end in ("opened", "closed")
    )
    readings = sorted(
        (at_ns, column[event["names"].index(name)])
        for event in events_of(store, "worker", "server_metrics_read")
        if name in event["names"]
        for at_ns, column in zip(event["times_ns"], zip(*event["values"], strict=True), strict=True)
    )
    before = [reading for at_ns, reading in readings if at_ns <= opened][-1]
    return float(next(reading for at_ns, reading in readings if at_ns >= closed) - before)


@needs_llamacpp
def test_llamacpp_from_a_cold_start_to_its_figures(llem: Run, store: Path, gguf: Path) -> None:
    """In half a minute for a window of ten seconds: every step of its start, joules and latencies, tokens counted alike three times, no error."""
    begun = time.monotonic()
    llama = (
        "--server",
        "llamacpp",
        "--model",
        gguf,
        "--concurrency",
        "8",
        "--set",
        "generation.ignore_eos=true",
    )
    done = llem(
        "measure",
        *llama,
        *METERED,
        "--set",
        "workload.requests=500",
        "--",
        "--threads",
        "1",
        "--parallel",
        "8",
    )
    assert done.returncode == 0, done.stderr
    took_s = time.monotonic() - begun
    (tokens,) = _rows(llem, _TOKENS)
    assert tokens["requests"] >= 500 and tokens["errors"] == 0
    assert tokens["streamed"] == tokens["used"] == _counted(store, llem, "llamacpp:tokens_predicted_total")
    assert tokens["asked"] == tokens["read"]
    (started,) = events_of(store, "worker", "server_started")
    assert all(started[f"{step}_ns"] for step in ("port_open", "healthy", "first_answer"))
    shown = llem("show").stdout
    for figure in ("energy per output token", "time to first token", "inter-token latency", "end to end"):
        line = next(line for line in shown.splitlines() if line.startswith(figure + " "))
        assert "not measured" not in line
    assert name_of_living(started["pid"]) is None
    # ten times what it takes on a quiet machine
    assert took_s < 300


@needs_llamacpp
def test_a_file_that_llamacpp_cannot_load_is_told_in_its_words(llem: Run, tmp_path: Path) -> None:
    """Within seconds, with status 2."""
    (junk := tmp_path / "junk.gguf").write_bytes(b"GGUF" + bytes(100))
    done = llem("measure", "--server", "llamacpp", "--model", junk, *METERED)
    assert done.returncode == 2
    assert "its last line: " in done.stderr and "error loading model" in done.stderr


@needs_llamacpp
def test_a_running_llamacpp_is_left_running(llem: Run, store: Path, gguf: Path, tmp_path: Path) -> None:
    """Its model is asked for by the name that it lists."""
    plan = msgspec.convert(
        {"model": {"name": str(gguf)}, "server": {"kind": "llamacpp", "args": ["-t", "1"]}}, Plan
    )
    server = create_server(plan)
    with keeper() as kept:
        launch = server.launch(port=(port := free_port()))
        assert launch is not None
        process = start(kept, launch.argv, tmp_path, port=port)
        Awaited(
            server, ServerPlan(), process.address, check=process.check, should_stop=lambda: False, tell=print
        ).ready()
        short = ("--set", "workload.min_duration_s=2", "--set", "windows.warmup_max_s=2")
        done = llem("measure", "--server", process.address.url, *METERED, *short)
        assert done.returncode == 0, done.stderr
        process.check()
    (started,) = events_of(store, "worker", "server_started")
    assert started["model"] == str(gguf) and started["pid"] == process.pid


@needs_transformers
@pytest.mark.torch
def test_transformers_serve_counts_as_we_do(llem: Run, store: Path, folder: Path) -> None:
    """Over 200 requests and more, eight at a time; it has no counters of its own."""
    served = (
        "--server",
        "transformers",
        "--model",
        folder,
        "--concurrency",
        "8",
        "--set",
        "engine.device=cpu",
    )
    lengths = ("--set", "workload.requests=200", "--set", "workload.output_tokens.mean=8")
    done = llem("measure", *served, *METERED, *lengths, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    (tokens,) = _rows(llem, _TOKENS)
    assert tokens["requests"] >= 200 and tokens["errors"] == 0
    assert tokens["streamed"] == tokens["used"] > 0
    assert tokens["asked"] == tokens["read"] > 0
    (started,) = events_of(store, "worker", "server_started")
    assert started["port_open_ns"] < started["first_answer_ns"]


@needs_transformers
@pytest.mark.torch
def test_a_model_that_transformers_cannot_load_is_told(llem: Run, tmp_path: Path) -> None:
    """It says that it is well before it has loaded anything, so a first request is what shows it."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = llem(
        "measure", "--server", "transformers", "--model", tmp_path, *METERED, "--set", "engine.device=cpu"
    )
    assert done.returncode == 2
    assert "refuses a first request" in done.stderr or "the server ended" in done.stderr
