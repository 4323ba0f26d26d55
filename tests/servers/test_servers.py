"""Every server of the registry: its command line, and what is wrong with a plan before anything is started."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.errors import LlemError
from llem.plan import Plan
from llem.registry import SERVERS
from llem.servers import check_server, create_server
from llem.servers.base import Server, plain_tokens, vocabulary_of_folder
from llem.servers.llamacpp_wheel import WrongOptionError, pairs, set_option
from tests.servers.programs import simulated


def _plan(kind: str, *, model: str = "folder", **server: Any) -> Plan:
    return msgspec.convert({"model": {"name": model}, "server": {"kind": kind, **server}}, Plan)


def _argv(plan: Plan) -> list[str]:
    launch = create_server(plan).launch(port=8123)
    assert launch is not None
    return launch.argv


@pytest.mark.parametrize("kind", SERVERS)
def test_a_module_does_what_every_server_does(kind: str) -> None:
    """It has all that the protocol names, with the same arguments."""
    module = importlib.import_module(SERVERS[kind].module)
    server = module.create(_plan(kind))
    for name in [name for name in dir(Server) if not name.startswith("_")]:
        wanted = getattr(Server, name, None)
        assert hasattr(server, name), name
        if inspect.isfunction(wanted):
            found = inspect.signature(getattr(server, name)).parameters
            assert list(found) == list(inspect.signature(wanted).parameters)[1:]


def test_a_command_line_ends_with_what_the_user_adds() -> None:
    """So that it wins over what llem sets."""
    plan = _plan("vllm", model="org/model", args=["--tensor-parallel-size", "2"])
    begin = ["vllm", "serve", "org/model", "--host", "127.0.0.1", "--port", "8123"]
    assert _argv(plan) == [*begin, "--tensor-parallel-size", "2"]
    assert _argv(_plan("sglang", args=["--x"]))[-2:] == ["--enable-metrics", "--x"]
    assert _argv(_plan("transformers", args=["--x"]))[-1] == "--x"


def test_a_command_of_ones_own_gets_the_port_and_the_model() -> None:
    """Wherever their names stand in it."""
    command = [sys.executable, "serve.py", "--at={host}:{port}", "{model}"]
    assert _argv(_plan("command", command=command, model="m"))[1:] == ["serve.py", "--at=127.0.0.1:8123", "m"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (_plan("llamacpp", model="/no/such.gguf"), "no such|not there|no llama-server"),
        (_plan("command"), "server.command: found nothing"),
        (_plan("command", command=["/no/such/program", "{port}"]), "/no/such/program"),
        (_plan("command", command=[sys.executable]), r"no \{port\} in it"),
        (_plan("url"), "server.url: found nothing"),
        (
            _plan("url", url="http://127.0.0.1:1", args=["--x"]),
            "server.args: found a server that runs already",
        ),
        (_plan("vllm", model="tiny-llama"), "no vllm on the PATH|no model is named"),
        (_plan("transformers", model="tiny-llama"), "no package|no model is named"),
    ],
)
def test_what_cannot_be_started_is_told(plan: Plan, said: str) -> None:
    """With status 2, before anything was."""
    with pytest.raises(LlemError, match=said) as caught:
        check_server(plan)
    assert caught.value.exit_status == 2


def test_the_simulated_server_takes_the_plans_times(tmp_path: Path) -> None:
    """They are part of its command line, and so of the log."""
    with simulated(tmp_path, prefill_ms=7.0) as process:
        assert '"prefill_ms":7.0' in process.argv[-1]


def test_plain_tokens_leave_out_the_special_ones() -> None:
    """Of a large vocabulary; a small one has no room for a guess."""
    assert plain_tokens(259) == (0, 259)
    least, end = plain_tokens(128_256)
    assert 256 < least < end <= 128_000


def test_a_folder_tells_its_vocabulary(tmp_path: Path) -> None:
    """By its configuration, also of a model that has a part for text; anything else does not."""
    assert vocabulary_of_folder(_plan("vllm", model=str(tmp_path))) is None
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 128}}')
    assert vocabulary_of_folder(_plan("vllm", model=str(tmp_path))) == (0, 128)


class _Params:
    def __init__(self) -> None:
        self.n_ctx, self.endpoint_metrics, self.hostnames = 0, False, ["a"]
        self.model, self.cpuparams = type("Model", (), {"path": ""})(), type("Cpu", (), {"n_threads": 0})()


def test_the_wheels_program_takes_the_options_of_llama_server() -> None:
    """Long and short ones, those without a value, and every parameter of the wheel by its name."""
    params = _Params()
    for name, text in pairs(["-c", "128", "--metrics", "--host=b", "--model", "m.gguf", "-t", "2"]):
        set_option(params, name, text)
    assert (params.n_ctx, params.endpoint_metrics, params.hostnames) == (128, True, ["b"])
    assert (params.model.path, params.cpuparams.n_threads) == ("m.gguf", 2)


@pytest.mark.parametrize("options", [["--no-such", "1"], ["-c", "many"], ["stray"]])
def test_the_wheels_program_refuses_what_it_does_not_know(options: list[str]) -> None:
    """Rather than serve otherwise than was asked for."""
    with pytest.raises(WrongOptionError):
        for name, text in pairs(options):
            set_option(_Params(), name, text)
