"""llem measures what running a language model costs and keeps every fact it saw."""

from llem._version import __version__

__all__ = ["__version__"]
