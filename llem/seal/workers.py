"""Who seals: processes of this host, of which one that dies is replaced and its task tried again; or the workers of Dask's scheduler, which have llem and see the same files."""

import importlib
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from llem.errors import LlemError, MissingExtraError
from llem.parent_death import die_with_parent
from llem.seal.tasks import Done, Task, perform

TRIES = 3  # a task whose process dies as often is given up
CONNECT_S = 10.0
# What Dask takes for none it complains of, and never ends.
ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://([\w.-]+|\[[0-9a-fA-F:.%]+\]):\d{1,5}", re.ASCII)


def main() -> None:
    """A process that seals: tasks on standard input, a line each, and what came of them on standard output."""
    die_with_parent(int(sys.argv[1]))
    decoder = msgspec.json.Decoder(Task)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(perform(decoder.decode(line))) + b"\n")
        sys.stdout.buffer.flush()


def by_processes(tasks: Sequence[Task], *, workers: int) -> Iterator[Done]:
    """What came of each task, in the order in which they end."""
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    done: queue.SimpleQueue[Done] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    for _ in range(min(workers, len(tasks))):
        threading.Thread(target=_serve, args=(waiting, done), daemon=True).start()
    for _ in tasks:
        yield done.get()


def _serve(waiting: "queue.SimpleQueue[Task]", done: "queue.SimpleQueue[Done]") -> None:
    """One process at a time, for as long as there are tasks."""
    worker = _Worker()
    try:
        while True:
            task = waiting.get_nowait()
            for _ in range(TRIES):
                answer = worker.perform(task)
                if answer is not None:
                    break
                worker.close()
                worker = _Worker()
            else:
                answer = Done(task=task, kind="failed", reason=f"its process died {TRIES} times")
            done.put(answer)
    except queue.Empty:
        pass
    finally:
        worker.close()


class _Worker:
    """A process that seals; its parent thread lives as long as it does, since the kernel ends it with that."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llem.seal.workers", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # an interrupt from the keyboard reaches the parent alone, which then ends its child
        )

    def perform(self, task: Task) -> Done | None:
        """None where the process died over it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(task) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._process.stdout.readline()
        return msgspec.json.decode(line, type=Done) if line.endswith(b"\n") else None

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


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


if __name__ == "__main__":
    main()
