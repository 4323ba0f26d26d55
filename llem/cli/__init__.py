"""The command line: the only place that prints, exits, or imports typer and rich."""

import importlib
import sys
import traceback
from collections.abc import Sequence

import typer

from llem.cli import console, screen
from llem.errors import LlemError, OutputError
from llem_events.errors import CorruptError, LogError

Commands = dict[str, tuple[str, str]]

# name -> (module:function or module:app, one line of help); a module is imported only when its command runs.
COMMANDS: Commands = {
    "measure": ("llem.cli.measure:measure", "Measure a model, or any command after --, on this machine."),
    "runs": ("llem.cli.runs:runs", "List the experiments in the store."),
    "show": ("llem.cli.show:show", "Show one experiment's result, or the events it came from."),
    "query": ("llem.cli.query:query", "Ask the store in SQL; without SQL, list its tables and columns."),
    "export": ("llem.cli.export:export", "Write results to CSV, JSON, JSON Lines or Parquet."),
    "import": (
        "llem.cli.import_result:import_result",
        "Take results of LLenergyMeasure (schema 2.0) into the store.",
    ),
    "rebuild": ("llem.cli.rebuild:rebuild", "Replay the whole log into new projections."),
    "log": ("llem.cli.log:app", "Look into segments: info, cat, verify, recover, redact, digest."),
    "doctor": ("llem.cli.doctor:doctor", "Say what can be measured here, what not and why, and the fix."),
}
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    screen.set_up()
    status = _status_of(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except OutputError as error:
        status = _cannot_write(error)
    sys.exit(status)


def _status_of(arguments: list[str]) -> int | str | None:
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        app = build_app(chosen)
        arguments, program = split_program(arguments) if chosen == "measure" else (arguments, [])
        app(args=arguments, prog_name="llem", obj=program)
    except SystemExit as ended:
        return ended.code
    except OutputError as error:
        return _cannot_write(error)
    except (LlemError, LogError) as error:
        console.complain(str(error))
        return exit_status(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- the command line's outermost frame: no traceback unless asked for
        _complain_of_bug(error)
        return EXIT_INTERNAL
    return 0


def _cannot_write(error: OutputError) -> int:
    """Nothing more can be said on stdout; that its reader has gone, as with `| head`, is no error."""
    screen.discard_output()
    if isinstance(error, screen.ReaderGone):
        return 0
    console.complain(str(error))
    return error.exit_status


def build_app(chosen: str | None) -> typer.Typer:
    """The application with the chosen command loaded; the others are only names with their help."""
    app = typer.Typer(
        help="Measure what running a language model costs, and ask afterwards.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, (place, help_line) in COMMANDS.items():
        if name != chosen:
            app.command(name, help=help_line)(_unloaded)
            continue
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, help=help_line)
        else:
            app.command(name, help=help_line)(command)
    return app


def split_program(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before `--`, and the program to measure after it."""
    if "--" not in arguments:
        return list(arguments), []
    at = list(arguments).index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def exit_status(error: LlemError | LogError) -> int:
    """2 for wrong input, 3 for damaged data."""
    if isinstance(error, LlemError):
        return error.exit_status
    return 3 if isinstance(error, CorruptError) else 2


def _root(
    version: bool = typer.Option(
        False,
        "--version",
        help="Print the version and exit.",
        is_eager=True,
        callback=lambda asked: _version(asked),
    ),
    verbose: int = typer.Option(
        0, "-v", "--verbose", count=True, help="More on stderr; -vv adds tracebacks."
    ),
) -> None:
    console.set_verbosity(verbose)


def _version(asked: bool) -> None:
    if asked:
        console.say(importlib.import_module("llem").__version__)
        raise typer.Exit


def _unloaded() -> None:
    """Stands for a command that was not chosen."""


def _complain_of_bug(error: Exception) -> None:
    console.complain(
        f"internal error: {type(error).__name__}: {error}; run again with -vv before the command for the traceback"
    )
    if console.verbosity() >= 2:
        traceback.print_exception(error)
