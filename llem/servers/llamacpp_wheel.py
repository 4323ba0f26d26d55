"""The server in the wheel xllamacpp as a program: python -m llem.servers.llamacpp_wheel --model FILE --port N --ctx-size N ...

It takes the commonest options of `llama-server`, and every other parameter of the wheel's CommonParams by its name.
"""

import importlib
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_RENAMED = {
    "alias": "model_alias", "batch_size": "n_batch", "c": "n_ctx", "ctx_size": "n_ctx", "host": "hostnames", "m": "model",
    "metrics": "endpoint_metrics", "n": "n_predict", "ngl": "n_gpu_layers", "np": "n_parallel", "parallel": "n_parallel",
    "slots": "endpoint_slots", "t": "threads", "ub": "n_ubatch", "ubatch_size": "n_ubatch",
}  # fmt: skip
FAILED, WRONG = 1, 2


class WrongOptionError(Exception):
    """An option that cannot be taken."""


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each option's name, as the wheel has it, and its text; None where none follows."""
    place = 0
    while place < len(arguments):
        option, equals, text = arguments[place].partition("=")
        if not option.startswith("-"):
            raise WrongOptionError(f"found {option}, expected an option")
        follows = place + 1 < len(arguments) and not _is_option(arguments[place + 1])
        name = option.lstrip("-").replace("-", "_")
        yield _RENAMED.get(name, name), text if equals else arguments[place + 1] if follows else None
        place += 1 if equals or not follows else 2


def _is_option(text: str) -> bool:
    return text.startswith("-") and not text[1:2].isdigit()


def converted(name: str, text: str | None, before: Any) -> Any:
    """The text as the type that the parameter has."""
    try:
        match before:
            case bool():
                return text is None or text.lower() in {"1", "true", "on", "yes"}
            case int():
                return int(text or "")
            case float():
                return float(text or "")
            case list():
                return (text or "").split(",")
            case str():
                return text or ""
    except ValueError:
        pass
    raise WrongOptionError(f"--{name.replace('_', '-')} cannot be set to {text}")


def set_option(params: Any, name: str, text: str | None) -> None:
    """Raises WrongOptionError for one that there is not."""
    if name == "model":
        params.model.path = text or ""
    elif name == "threads":
        params.cpuparams.n_threads = converted(name, text, 0)
    elif not hasattr(params, name):
        raise WrongOptionError(
            f"unknown option --{name.replace('_', '-')}; llama-server on the PATH takes all of its own"
        )
    else:
        setattr(params, name, converted(name, text, getattr(params, name)))


def main() -> int:
    """Serves until a signal ends it."""
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    try:
        for name, text in pairs(sys.argv[1:]):
            set_option(params, name, text)
    except WrongOptionError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        # it has said why, line by line
        return FAILED
    sys.stderr.write(f"listening on {server.listening_address}\n")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    # a library's threads take a signal that is not held back from them
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main())
