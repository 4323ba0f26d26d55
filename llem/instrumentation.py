"""What a measured program calls: regions of its code, and the work that it did; outside of `llem measure -- PROGRAM` nothing happens.

Nothing here can fail the program, save a wrong argument, which is one with and without llem.
"""

import functools
import itertools
import operator
import os
import stat
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

from llem.region_lines import MAX_COUNT, VARIABLE, Place, RegionLine, WorkLine, place_in, printable, written

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
_COROUTINE, _GENERATORS = 0x80, 0x20 | 0x200  # flags of code objects


class _Pipe:
    """The way to llem, as long as there is one."""

    def __init__(self, place: Place | None) -> None:
        self._place = place
        self._descriptor = -1
        self.lost = 0

    def __bool__(self) -> bool:
        return self._place is not None

    def write(self, line: bytes) -> None:
        """Never waits: a line that finds no room is lost, and counted."""
        try:
            if not self._is_ours(self._descriptor):
                self._descriptor = self._opened()
            os.write(self._descriptor, line)
        except BlockingIOError:
            self.lost += 1
        except OSError:
            self._place = None  # llem is gone, or cannot be reached from here

    def _is_ours(self, descriptor: int) -> bool:
        """Whether it still is the pipe: a program that closes what it does not know may have opened its own file by that number."""
        try:
            return self._is_pipe(os.fstat(descriptor))
        except OSError:
            return False

    def _is_pipe(self, found: os.stat_result) -> bool:
        place = self._place
        same = place is not None and (found.st_dev, found.st_ino) == (place.device, place.inode)
        return same and stat.S_ISFIFO(found.st_mode)

    def _opened(self) -> int:
        """A descriptor of our own. Raises OSError.

        It can be read, too, so that no signal ends the program where llem reads no more.
        """
        for path in self._place.paths if self._place else ():
            try:
                if self._is_pipe(os.stat(path)):  # noqa: PTH116 -- pathlib takes longer to load than all of this
                    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
        raise OSError("the pipe to llem is nowhere")


class _Speaker:
    """This process, as it names itself to llem, and what it has done."""

    def __init__(self, pipe: _Pipe) -> None:
        self.pipe = pipe
        self.name = f"{os.getpid()}.{time.monotonic_ns()}"
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._done: list[int | None] = [None] * (len(WorkLine._fields) - 2)

    def next_number(self) -> int:
        """Of a region."""
        return next(self._numbers)

    def add(self, work: list[int | None]) -> None:
        """Tell llem all that was done: a line that is lost is made good by the next."""
        with self._lock:
            self._done = [_sum(before, more) for before, more in zip(self._done, work, strict=True)]
            self.pipe.write(written(WorkLine(self.name, self.pipe.lost, *self._done)))


class _Open:
    """A region that has begun and not ended."""

    __slots__ = ("around", "began_ns", "number", "requests", "speaker", "tokens")

    def __init__(self, speaker: _Speaker, around: "_Open | None") -> None:
        self.speaker, self.around = speaker, around
        self.number = speaker.next_number()
        self.tokens: int | None = None
        self.requests: int | None = None
        self.began_ns = time.monotonic_ns()

    @property
    def id(self) -> str:
        return f"{self.speaker.name}/{self.number}"

    def tell(self, name: str, ended_ns: int | None) -> None:
        speaker, parent = self.speaker, "" if self.around is None else self.around.id
        line = RegionLine(
            speaker.name,
            speaker.pipe.lost,
            self.number,
            parent,
            self.began_ns,
            ended_ns,
            self.tokens,
            self.requests,
            name,
        )
        speaker.pipe.write(written(line))


_speaker = _Speaker(_Pipe(place_in(os.environ.get(VARIABLE))))
_innermost: ContextVar[_Open | None] = ContextVar("llem_region", default=None)


def _begin_anew() -> None:
    """A process that was forked is another one, and has done nothing yet."""
    global _speaker
    _speaker = _Speaker(_speaker.pipe)


os.register_at_fork(after_in_child=_begin_anew)


class region:  # noqa: N801 -- written as a statement: `with llem.region("epoch"):`
    """A part of the program whose energy is told apart: a `with` statement, or a decorator of a function.

    Regions may stand inside of each other, and run at the same time in threads, tasks and processes.
    """

    __slots__ = ("_name", "_open")

    def __init__(self, name: str) -> None:
        """`name` groups regions in results. Raises TypeError where it is no text."""
        if not isinstance(name, str):
            raise TypeError(f"name of a region: found {type(name).__name__}, expected str")
        self._name = printable(name)
        self._open: list[_Open] = []

    def __enter__(self) -> "region":
        if _speaker.pipe:
            begun = _Open(_speaker, _innermost.get())
            self._open.append(begun)
            _innermost.set(begun)
            begun.tell(self._name, None)
        return self

    def __exit__(self, *_: object) -> None:
        ended_ns = time.monotonic_ns()
        if self._open:
            begun = self._open.pop()
            _innermost.set(begun.around)
            if begun.speaker is _speaker:  # what a forked process inherits ends where it began
                begun.tell(self._name, ended_ns)

    def __call__(self, function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        """The function as a region; of a coroutine, from its first step to its last. Raises TypeError for a generator."""
        name, flags = self._name, getattr(getattr(function, "__code__", None), "co_flags", 0)
        if flags & _GENERATORS:
            raise TypeError(
                f"region {name!r}: found a generator, expected a function; use `with` inside of it"
            )

        async def awaited(*arguments: Any, **named: Any) -> Any:
            with region(name):
                return await cast(Callable[..., Any], function)(*arguments, **named)

        def called(*arguments: Any, **named: Any) -> Any:
            with region(name):
                return function(*arguments, **named)

        return cast(
            Callable[Parameters, Returned],
            functools.wraps(function)(awaited if flags & _COROUTINE else called),
        )


def report(
    tokens: int | None = None,
    *,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    requests: int | None = None,
) -> None:
    """Work that the program has done since its last report, counted for the run and for every region that is open here.

    `tokens` are all of them; where it is left out, those of the input and of the output together. Where one report tells how many are output and
    another, of tokens that may be, does not, output tokens are not known. Raises TypeError, ValueError.
    """
    tokens, inputs, outputs, answered = (
        _count(name, count)
        for name, count in (
            ("tokens", tokens),
            ("input_tokens", input_tokens),
            ("output_tokens", output_tokens),
            ("requests", requests),
        )
    )
    without_input = without_output = None
    if tokens is None:
        tokens = _sum(inputs, outputs)
    elif tokens < (inputs or 0) + (outputs or 0):
        raise ValueError(f"tokens: found {tokens}, expected at least those of input and output together")
    else:
        without_input = tokens - (outputs or 0) if inputs is None else None
        without_output = tokens - (inputs or 0) if outputs is None else None
    if not _speaker.pipe:
        return
    around = _innermost.get()
    while around is not None:
        around.tokens, around.requests = _sum(around.tokens, tokens), _sum(around.requests, answered)
        around = around.around
    _speaker.add([tokens, inputs, outputs, answered, without_input, without_output])


def _count(name: str, count: int | None) -> int | None:
    """Any integer, NumPy's and PyTorch's too."""
    if count is None:
        return None
    number = operator.index(count)
    if not 0 <= number <= MAX_COUNT:
        raise ValueError(f"{name}: found {number}, expected 0 to 2^53")
    return number


def _sum(before: int | None, more: int | None) -> int | None:
    return before if more is None else (before or 0) + more
