"""Tables built from the log: disposable, and the only place where figures are looked up."""

from llem.projections.catch_up import CatchUpReport, catch_up
from llem.projections.database import open_readonly

__all__ = ["CatchUpReport", "catch_up", "open_readonly"]
