"""llem measures what running a language model costs and keeps every fact it saw."""

from typing import TYPE_CHECKING

from llem.versions import __version__ as __version__
from llem_events.lazy import root_of

if TYPE_CHECKING:
    from llem.api import open_store as open_store
    from llem.instrumentation import region as region
    from llem.instrumentation import report as report

# What needs a database is loaded when it is asked for: a measuring process never does.
__all__, __getattr__, __dir__ = root_of(
    __name__, {"api": "open_store", "instrumentation": "region report"}, loaded=["__version__"]
)
