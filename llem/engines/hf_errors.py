"""Errors of torch, transformers and the hub, told as EngineError in one line."""

from huggingface_hub import errors as hub
from safetensors import SafetensorError
from torch import OutOfMemoryError

from llem.engines.hub import causes_of, hub_error, one_line, type_and_text
from llem.engines.sources import ModelSource
from llem.errors import EngineError

# All of the hub's own, and of its HTTP client, whichever that is in the installed release.
_HUB_ERRORS = tuple(
    kind for kind in vars(hub).values() if isinstance(kind, type) and issubclass(kind, Exception)
)

# What loading a model is known to raise: these libraries check a model's files by using them.
LOADING_ERRORS: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    MemoryError,
    OSError,
    KeyError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    SafetensorError,
    *_HUB_ERRORS,
)


def loading_error(error: BaseException, source: ModelSource) -> EngineError:
    """Why a model could not be loaded and what to try."""
    causes = causes_of(error)
    if any(isinstance(cause, OutOfMemoryError | MemoryError) for cause in causes):
        return EngineError(
            f"model {source.name} does not fit into memory",
            found=one_line(error),
            hint="try model.dtype = 'bfloat16' or a smaller model",
        )
    if source.kind == "hub":
        return hub_error(error, source, hint=_code_hint(error))
    pretrained = source.weights == "pretrained"
    return EngineError(
        f"{_model(source)} cannot be loaded",
        found=type_and_text(error),
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


def _model(source: ModelSource) -> str:
    return f"model {source.name}" + (f" of {source.location}" if source.location != source.name else "")


def _code_hint(error: BaseException) -> str | None:
    if "trust_remote_code" in str(error):
        return "the model brings its own code: set model.trust_remote_code, and model.revision to a full commit hash"
    return None
