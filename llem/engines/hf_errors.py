"""Errors of torch, transformers and the hub, told as EngineError in one line."""

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import OutOfMemoryError

from llem.engines.sources import ModelSource, preset_names, suggestion
from llem.errors import EngineError

# What loading a model is known to raise; anything else is a defect and keeps its traceback.
LOADING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    RuntimeError,
    SafetensorError,
    HfHubHTTPError,
)


def loading_error(error: BaseException, source: ModelSource) -> EngineError:
    """Why a model could not be loaded and what to try."""
    causes = _causes(error)
    if any(isinstance(cause, OutOfMemoryError | MemoryError) for cause in causes):
        return EngineError(
            f"model {source.name} does not fit into memory",
            found=first_line(error),
            hint="try model.dtype = 'bfloat16' or a smaller model",
        )
    if source.kind == "hub":
        return _hub_error(error, causes, source)
    return EngineError(
        f"model {source.name} cannot be loaded from {source.location}",
        found=f"{type(error).__name__}: {first_line(error)}",
        expected="config.json, *.safetensors"
        if source.weights == "pretrained"
        else "a config.json of a causal language model",
        hint=_code_hint(error),
    )


def first_line(error: BaseException) -> str:
    """The first line of a message that may be long, or the error's type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _hub_error(error: BaseException, causes: list[BaseException], source: ModelSource) -> EngineError:
    name = source.name
    for kinds, found, hint in (
        (
            (GatedRepoError,),
            "access is gated",
            "accept its licence on huggingface.co and log in with `hf auth login`",
        ),
        ((RevisionNotFoundError,), f"no revision {source.revision}", "check model.revision"),
        (
            (RepositoryNotFoundError,),
            "no such model on the hub",
            suggestion(name) or "check the name; a private model needs `hf auth login`",
        ),
        (
            (OfflineModeIsEnabled,),
            "the hub is switched off by HF_HUB_OFFLINE and the model is not in the cache",
            _local_hint(name),
        ),
        (
            (LocalEntryNotFoundError, ConnectionError),
            "the hub cannot be reached and the model is not in the cache",
            _local_hint(name),
        ),
    ):
        if any(isinstance(cause, kinds) for cause in causes):
            return EngineError(
                f"model {name} cannot be loaded",
                found=found,
                expected="hub name, folder or preset",
                hint=hint,
            )
    return EngineError(
        f"model {name} cannot be loaded from the hub",
        found=f"{type(error).__name__}: {first_line(error)}",
        hint=_code_hint(error) or suggestion(name),
    )


def _local_hint(name: str) -> str:
    return suggestion(name) or f"name a folder, or a preset ({', '.join(preset_names())})"


def _code_hint(error: BaseException) -> str | None:
    if "trust_remote_code" in str(error):
        return "the model brings its own code: set model.trust_remote_code and model.revision to a full commit hash"
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


# What running a batch is known to raise.
RUNNING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, MemoryError)


def is_fatal(error: BaseException) -> bool:
    """Whether the CUDA context is lost, after which no batch can run; being out of memory is not that."""
    if isinstance(error, OutOfMemoryError):
        return False
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"
