"""Errors of torch, transformers and the hub, told as EngineError in one line."""

from huggingface_hub import constants
from huggingface_hub import errors as hub
from safetensors import SafetensorError
from torch import OutOfMemoryError

from llem.engines.sources import ModelSource, preset_names, suggestion
from llem.errors import EngineError

# What running a batch is known to raise; anything else is a defect and keeps its traceback.
RUNNING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, MemoryError)

# All of the hub's own, and of its HTTP client, whichever that is in the installed release.
_HUB_ERRORS = tuple(
    kind for kind in vars(hub).values() if isinstance(kind, type) and issubclass(kind, Exception)
)

# What loading a model is known to raise: these libraries check a model's files by using them.
LOADING_ERRORS: tuple[type[BaseException], ...] = (
    *RUNNING_ERRORS,
    OSError,
    KeyError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    SafetensorError,
    *_HUB_ERRORS,
)

_MESSAGE_LIMIT = 300


def loading_error(error: BaseException, source: ModelSource) -> EngineError:
    """Why a model could not be loaded and what to try."""
    causes = _causes(error)
    if any(isinstance(cause, OutOfMemoryError | MemoryError) for cause in causes):
        return EngineError(
            f"model {source.name} does not fit into memory",
            found=one_line(error),
            hint="try model.dtype = 'bfloat16' or a smaller model",
        )
    if source.kind == "hub":
        return _hub_error(error, causes, source)
    pretrained = source.weights == "pretrained"
    return EngineError(
        f"{_model(source)} cannot be loaded",
        found=f"{type(error).__name__}: {one_line(error)}",
        expected="config.json and *.safetensors"
        if pretrained
        else "the configuration of a causal language model",
        hint=_code_hint(error),
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the CUDA context is lost, after which no batch can run; being out of memory is not that."""
    if isinstance(error, OutOfMemoryError):
        return False
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"


def one_line(error: BaseException) -> str:
    """A message without line breaks, cut where it goes on and on."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= _MESSAGE_LIMIT else message[:_MESSAGE_LIMIT] + "..."


def _model(source: ModelSource) -> str:
    return f"model {source.name}" + (f" of {source.location}" if source.location != source.name else "")


def _hub_error(error: BaseException, causes: list[BaseException], source: ModelSource) -> EngineError:
    for kind, found, hint in (
        (hub.GatedRepoError, "gated access", "accept its licence on huggingface.co, then `hf auth login`"),
        (hub.RevisionNotFoundError, f"no revision {source.revision}", "check model.revision"),
        (
            hub.RepositoryNotFoundError,
            "no such model on the hub",
            _name_hint(source, "a private model needs `hf auth login`"),
        ),
        (hub.OfflineModeIsEnabled, _unreachable(), _local_hint(source)),
        (hub.LocalEntryNotFoundError, _unreachable(), _local_hint(source)),
        (ConnectionError, _unreachable(), _local_hint(source)),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return EngineError(
                f"model {source.name} cannot be loaded",
                found=found,
                expected="hub name, folder or preset",
                hint=hint,
            )
    found = f"{type(error).__name__}: {one_line(error)}"
    return EngineError(
        f"model {source.name} cannot be loaded from the hub", found=found, hint=_code_hint(error)
    )


def _unreachable() -> str:
    why = "is switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "cannot be reached"
    return f"the hub {why} and the model is not in its cache"


def _local_hint(source: ModelSource) -> str:
    return _name_hint(source, f"name a folder, or a preset ({', '.join(preset_names())})")


def _name_hint(source: ModelSource, otherwise: str) -> str:
    return suggestion(source.name) or otherwise


def _code_hint(error: BaseException) -> str | None:
    if "trust_remote_code" in str(error):
        return "the model brings its own code: set model.trust_remote_code, and model.revision to a full commit hash"
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
