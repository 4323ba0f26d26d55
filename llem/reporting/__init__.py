"""A report that can be handed out: one HTML file, drawn by Python, complete without JavaScript and without a network."""

import sys
from types import ModuleType

from llem.instrumentation import report as _report_work


class _CallablePackage(ModuleType):
    """Python binds this package to the name `llem.report` when it is loaded; that name is a function, and stays one."""

    __call__ = staticmethod(_report_work)


sys.modules[__name__].__class__ = _CallablePackage
