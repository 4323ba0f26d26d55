"""The lines of llem shell on a terminal: completion, history, statements over several lines."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.shortcuts import CompleteStyle

from llem.cli.console import note, on_one_line
from llem.cli.shell import COMMANDS, CONTINUED, MODES, PROMPT, Session
from llem.query.statements import saved_queries
from llem.query.typed_sql import NAMES, Names, candidates, is_whole, names_of


class _Completer(Completer):  # type: ignore[misc]  # prompt_toolkit is Any to the type checker, as every package that may be absent
    """Names of the store, each with its unit and meaning."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def get_completions(self, document: Any, complete_event: Any) -> Iterator[Any]:
        """What may stand at the cursor."""
        for each in candidates(document.text_before_cursor, document.text_after_cursor, self._names):
            meaning = on_one_line(each.meaning)
            yield Completion(each.text, start_position=-each.replaced, display_meta=meaning)


def reader(session: Session) -> Callable[[], str]:
    """A function that reads what a person writes, until it can be run. It raises EOFError at the end, KeyboardInterrupt for Ctrl-C."""
    prompt = PromptSession(
        PROMPT,
        prompt_continuation=CONTINUED,
        multiline=Condition(lambda: not is_whole(get_app().current_buffer.text)),
        completer=_Completer(_names(session)),
        complete_while_typing=False,
        complete_style=CompleteStyle.COLUMN,
        history=_history(),
        include_default_pygments_style=False,
    )
    return lambda: str(prompt.prompt())


def _names(session: Session) -> Names:
    """Those of the store, which are asked for once; later runs change no names."""
    names = names_of(session.rows(NAMES))
    saved = {query.name: query.description for query in saved_queries()}
    return msgspec.structs.replace(
        names,
        commands={name: command.meaning for name, command in COMMANDS.items()},
        arguments={".schema": names.tables, ".mode": MODES, ".saved": saved},
    )


def _history() -> History:
    """What was written earlier, in the user's folder for such; where that cannot be had, that of this shell alone."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llem"
    path = folder / "shell_history"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
    except (OSError, RuntimeError) as error:
        note(f"llem: no history is kept: {error}")
        return InMemoryHistory()
    return FileHistory(path)
