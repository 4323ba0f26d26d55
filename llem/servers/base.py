"""What every server does, from how it is started to what stands in a log of it; and what the modules of servers share: programs and packages that have to be there."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from llem.errors import MeasureError, MissingExtraError, PlanError
from llem.plan import Plan
from llem.plan_file import path_of

HOST = "127.0.0.1"
_BEGIN_PATHS = ("/", "./", "../", "~")  # of a folder, never of a name on the hub
_LARGE_VOCABULARY, _SPECIAL_AT_BEGIN, _SPECIAL_AT_END = 4096, 300, 512


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The command line of a server, and the variables beside those that it inherits."""

    argv: list[str]
    environment: dict[str, str] = {}


class Counters(NamedTuple):
    """Names of the counters of tokens among a server's metrics."""

    input_tokens: str
    output_tokens: str


class Server(Protocol):
    """A kind of serving engine; knows nothing of power, storage or a model runtime."""

    NAME: ClassVar[str]
    # answers 200 when requests are taken
    READY_PATH: ClassVar[str]
    # Prometheus text; None: it tells none
    METRICS_PATH: ClassVar[str | None]
    COUNTERS: ClassVar[Counters | None]

    def launch(self, *, port: int) -> Launch | None:
        """How it is started on this port of HOST; None for one that runs already."""
        ...

    def model(self) -> str | None:
        """What requests have to call the model; None: the first one that the server lists."""
        ...

    def vocabulary(self, listed: Mapping[str, Any]) -> tuple[int, int] | None:
        """The least token id to ask with and the one after the highest, given what the server lists of its model.

        None: it is asked with texts.
        """
        ...

    def body(self) -> dict[str, Any]:
        """Fields of every request beside those that each has: how tokens are chosen, and what makes the server count them piece by piece."""
        ...

    def versions(self) -> dict[str, str]:
        """Package -> version, as far as that is known before it runs."""
        ...


def version_of(package: str) -> dict[str, str]:
    """Its version under its name; nothing where it is not installed here."""
    # every supervisor loads this module, and few ask for a version
    metadata = importlib.import_module("importlib.metadata")
    try:
        return {package: metadata.version(package)}
    except metadata.PackageNotFoundError:
        return {}


def has_package(name: str) -> bool:
    """Whether it can be imported here; it is not."""
    return importlib.util.find_spec(name) is not None


def require_program(program: str, *, server: str, hint: str) -> str:
    """Its path. Raises MeasureError where it is not on the PATH."""
    path = shutil.which(program)
    if path is None:
        raise MeasureError(f"server {server}", found=f"no {program} on the PATH", hint=hint)
    return path


def require_package(package: str, *, server: str, hint: str) -> None:
    """Raises MissingExtraError where it is not installed."""
    if not has_package(package):
        raise MissingExtraError(f"server {server}", found=f"no package {package}", hint=hint)


def require_model(plan: Plan, *, what: str) -> str:
    """The model's name. Raises PlanError where the plan names none, or a path at which nothing is."""
    if not plan.names_model:
        raise PlanError("no model is named", expected=f"--model {what}")
    name = plan.model.name
    if name.startswith(_BEGIN_PATHS) and not path_of(name).exists():
        raise PlanError("plan key model.name", found=f"{name}, which is not there", expected=what)
    return name


def require_file(plan: Plan, *, what: str) -> Path:
    """The model's file. Raises PlanError where there is none."""
    path = path_of(require_model(plan, what=what))
    if not path.is_file():
        found = f"{path}, which is {'a folder' if path.is_dir() else 'not there'}"
        raise PlanError("plan key model.name", found=found, expected=what)
    return path


def plain_tokens(size: int) -> tuple[int, int]:
    """Of a vocabulary of this size the ids that are probably no special ones: these stand at its beginning or its end."""
    return (_SPECIAL_AT_BEGIN, size - _SPECIAL_AT_END) if size >= _LARGE_VOCABULARY else (0, size)


def vocabulary_of_folder(plan: Plan) -> tuple[int, int] | None:
    """That of a local model, as its configuration has it; None for any other."""
    try:
        config = msgspec.json.decode((path_of(plan.model.name) / "config.json").read_bytes())
        size = config.get("vocab_size") or config["text_config"]["vocab_size"]
    except (OSError, msgspec.MsgspecError, AttributeError, KeyError, TypeError):
        return None
    return plain_tokens(size) if isinstance(size, int) else None


def sampling(plan: Plan, *, ignores_end: bool) -> dict[str, Any]:
    """The plan's `generation` as a request says it: greedy unless it samples, and what only some servers know by its own name.

    `ignores_end` says whether the server knows `ignore_eos`.
    """
    own, options = plan.own_generation, dict(plan.generate_options)
    greedy = {} if options.pop("do_sample", False) else {"temperature": 0.0}
    ignored = {"ignore_eos": True} if own.ignore_eos and ignores_end else {}
    return {"seed": own.seed % 2**31, **greedy, **ignored, **options}
