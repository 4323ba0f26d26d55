"""Models of the hub: whether one can be had, asked before anything is loaded, and why not, in one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, hf_hub_download
from huggingface_hub import errors as hub

from llem.engines.sources import ModelSource, preset_names, suggestion
from llem.errors import EngineError

_MESSAGE_LIMIT = 300


def check_hub(source: ModelSource) -> None:
    """Fetch the model's configuration into the hub's cache, or find it there. Raises EngineError."""
    try:
        with _retries_in_one_line():
            hf_hub_download(source.location, "config.json", revision=source.revision)
    except (
        hub.HfHubHTTPError,
        hub.LocalEntryNotFoundError,
        hub.OfflineModeIsEnabled,
        ValueError,
        OSError,
    ) as error:
        raise hub_error(error, source) from error


@contextmanager
def _retries_in_one_line() -> Iterator[None]:
    """The hub's client says two lines for each of its retries; a person needs to know once."""
    told = _Retries()
    handlers = logging.getLogger("huggingface_hub").handlers
    for handler in handlers:
        handler.addFilter(told)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(told)


class _Retries(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._is_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "thrown while requesting" not in text and "Retrying in" not in text:
            return True
        if not self._is_told:
            logging.getLogger("llem").warning("the hub does not answer; it is asked again for half a minute")
        self._is_told = True
        return False


def hub_error(error: BaseException, source: ModelSource, *, hint: str | None = None) -> EngineError:
    """Why a model of the hub could not be had and what to try; `hint` where the hub is not to blame."""
    causes = causes_of(error)
    for kind, found, advice in (
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
                hint=advice,
            )
    found = f"{type(error).__name__}: {one_line(error)}"
    return EngineError(f"model {source.name} cannot be loaded from the hub", found=found, hint=hint)


def _unreachable() -> str:
    why = "is switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "cannot be reached"
    return f"the hub {why} and the model is not in its cache"


def _local_hint(source: ModelSource) -> str:
    return _name_hint(source, f"name a folder, or a preset ({', '.join(preset_names())})")


def _name_hint(source: ModelSource, otherwise: str) -> str:
    return suggestion(source.name) or otherwise


def one_line(error: BaseException) -> str:
    """A message without line breaks, cut where it goes on and on; what cannot be stored as text is written out."""
    text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
    message = " ".join(text.split()) or type(error).__name__
    return message if len(message) <= _MESSAGE_LIMIT else message[:_MESSAGE_LIMIT] + "..."


def type_and_text(error: BaseException) -> str:
    """Type and message, in one line."""
    return f"{type(error).__name__}: {one_line(error)}"


def causes_of(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
