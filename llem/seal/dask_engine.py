"""The same tasks handed out by Dask's scheduler, to workers that have llem and see the same files."""

import importlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from llem.errors import LlemError, MissingExtraError
from llem.seal.tasks import Done, Task, perform
from llem.seal.workers import TRIES

CONNECT_S = 10.0
# What Dask takes for none it complains of, and never ends.
ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://([\w.-]+|\[[0-9a-fA-F:.%]+\]):\d{1,5}", re.ASCII)


def check_address(scheduler: str) -> str:
    """Raises LlemError."""
    if not ADDRESS.fullmatch(scheduler):
        raise LlemError(
            "Dask's scheduler", found=repr(scheduler), expected="an address such as tcp://HOST:8786"
        )
    return scheduler


def by_dask(tasks: Sequence[Task], *, scheduler: str) -> Iterator[Done]:
    """What came of each task, in the order in which they end.

    A task whose worker dies is given to another one, by the scheduler. Raises MissingExtraError, LlemError.
    """
    distributed = _distributed()
    if not tasks:
        return
    with _client(distributed, scheduler) as client, client.as_current():
        futures = client.map(perform, tasks, pure=False, retries=TRIES - 1)
        named = dict(zip(futures, tasks, strict=True))
        for future in distributed.as_completed(futures):
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                reason = f"{type(error).__name__}: {error}"
                yield Done(task=named[future], kind="failed", reason=reason)


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise MissingExtraError(
            "--engine dask", found="no package distributed", hint="pip install 'llem[dask]'"
        ) from error


def _client(distributed: Any, scheduler: str) -> Any:
    try:
        return distributed.Client(check_address(scheduler), timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise LlemError(
            f"Dask's scheduler {scheduler} does not answer",
            found=str(error),
            hint="`dask scheduler` starts one",
        ) from error
