"""A value that an option cannot take, told as every other error: what, found, expected."""

import inspect
import types
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from llem.errors import PlanError, nearest

_WORDS = "llem.cli.words"


class CommandGroup(TyperGroup):
    """The root of the commands: it alone sees what every one of them refuses."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # typer has its own subclass of the context
        """Keep the words as they were written; typer's errors do not."""
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer has its own subclass of the context
        """Run the command. Raises PlanError for a name or a number that an option cannot take."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            told = _told(error, ctx.meta[_WORDS])
            if told is None:
                raise
            raise told from None


def _told(error: typer.BadParameter, words: Sequence[str]) -> PlanError | None:
    """None for what typer says well: an option that is missing, one of another kind."""
    command = error.ctx.command if error.ctx else None
    if command is None or command.callback is None or error.param is None or not error.param.name:
        return None
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    kind, option = _kind_and_option(hints.get(error.param.name))
    names = [name for name in error.param.opts if name.startswith("-")]
    written = list(_written(words, names))
    if kind is None or not written:
        return None
    return _wrong(names[-1], written[-1], kind=kind, least=option.min, most=option.max)


def _kind_and_option(annotation: Any) -> tuple[type | None, Any]:
    """What the option takes, where it is one of several names or a number, and its declaration."""
    if not hasattr(annotation, "__metadata__"):
        return None, None
    declared, option = get_args(annotation)[:2]
    kinds = get_args(declared) if get_origin(declared) is types.UnionType else (declared,)
    kind = kinds[0]
    return (
        (kind, option) if isinstance(kind, type) and issubclass(kind, int | float | StrEnum) else (None, None)
    )


def _written(words: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Every value that was written behind the option, whether apart, with an equals sign, or joined to one letter."""
    for place, word in enumerate(words):
        if word == "--":
            return
        for name in names:
            if word == name:
                yield from words[place + 1 : place + 2]
            elif word.startswith(f"{name}="):
                yield word.removeprefix(f"{name}=")
            elif len(name) == 2 and word.startswith(name):
                yield word.removeprefix(name)


def _wrong(name: str, written: str, *, kind: type, least: float | None, most: float | None) -> PlanError:
    if issubclass(kind, StrEnum):
        names = [member.value for member in kind]
        expected = f"{', '.join(names[:-1])} or {names[-1]}"
        return PlanError(name, found=repr(written), expected=expected, hint=nearest(written, names))
    what = "a whole number" if issubclass(kind, int) else "a number"
    return PlanError(name, found=repr(written), expected=what + _range(least, most))


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return ""
    return f", {_number(least)} or more" if most is None else f" from {_number(least)} to {_number(most)}"


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:.15g}"
