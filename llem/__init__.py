"""llem measures what running a language model costs and keeps every fact it saw."""

import importlib
from typing import TYPE_CHECKING, Any

from llem._version import __version__

if TYPE_CHECKING:
    from llem.api import open_store

__all__ = ["__version__", "open_store"]


def __getattr__(name: str) -> Any:
    """What needs a database is loaded when it is asked for: a measuring process never does."""
    if name == "open_store":
        return importlib.import_module("llem.api").open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, whether it is loaded or not."""
    return sorted(__all__)
