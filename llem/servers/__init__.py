"""Serving engines in processes of their own: started or adopted, chosen by name and loaded only when chosen."""

import importlib
from typing import Protocol, cast

from llem.plan import Plan
from llem.registry import SERVERS
from llem.servers.base import HOST, Counters, Launch, Server

__all__ = ["HOST", "Counters", "Launch", "Server", "all_counters", "check_server", "create_server"]


class _Module(Protocol):
    COUNTERS: Counters | None

    def create(self, plan: Plan) -> Server: ...

    def check(self, plan: Plan) -> None: ...


def create_server(plan: Plan) -> Server:
    """The server that the plan names; nothing is started."""
    return _module(plan).create(plan)


def check_server(plan: Plan) -> None:
    """Raises LlemError for what cannot be started, or reached, as planned."""
    _module(plan).check(plan)


def all_counters() -> list[Counters]:
    """Those of every server that has any."""
    modules = [cast(_Module, importlib.import_module(kind.module)) for kind in SERVERS.values()]
    return [module.COUNTERS for module in modules if module.COUNTERS is not None]


def _module(plan: Plan) -> _Module:
    assert plan.server.kind is not None
    return cast(_Module, importlib.import_module(SERVERS[plan.server.kind].module))
