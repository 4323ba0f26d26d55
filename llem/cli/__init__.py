"""The command line: the only place that prints, exits, or imports typer and rich."""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from llem.cli import console
from llem.cli.wrong_values import CommandGroup
from llem.errors import LlemError, OutputError, PlanError, is_text
from llem_events.errors import CorruptError, LogError

Commands = dict[str, tuple[str, str]]

# name -> (module:function or module:app, one line of help); a module is imported only when its command runs.
COMMANDS: Commands = {
    "measure": ("llem.cli.measure:measure", "Measure a model, or any command after --, on this machine."),
    "study": ("llem.cli.study:study", "Measure configurations of a plan, in blocks and a drawn order."),
    "studies": ("llem.cli.study:studies", "List the studies in the store."),
    "calibrate": (
        "llem.cli.calibrate:calibrate",
        "Find out what power sensors see, by a load that is known.",
    ),
    "watch": ("llem.cli.watch:watch", "Watch a run or a study while it goes on, from another terminal."),
    "runs": ("llem.cli.runs:runs", "List the experiments in the store."),
    "label": ("llem.cli.label:label", "Change the labels of an experiment."),
    "rm": ("llem.cli.remove:remove", "Remove experiments from the store, for good."),
    "show": ("llem.cli.show:show", "Show one experiment's result, or the events it came from."),
    "compare": ("llem.cli.compare:compare", "Compare groups of runs, with intervals."),
    "report": ("llem.cli.report:report", "Write a page that can be handed out."),
    "query": ("llem.cli.query:query", "Ask the store in SQL; without SQL, list its tables and columns."),
    "shell": ("llem.cli.shell:shell", "Ask the store in SQL, statement after statement."),
    "export": ("llem.cli.export:export", "Write results to CSV, JSON or Parquet, a timeline for Perfetto."),
    "import": (
        "llem.cli.import_result:import_result",
        "Take files of other programs into the store.",
    ),
    "collect": ("llem.cli.collect:collect", "Bring the logs of many stores into one."),
    "seal": ("llem.cli.seal:seal", "Write the log as Parquet, for many hosts to read."),
    "rebuild": ("llem.cli.rebuild:rebuild", "Replay the whole log into new projections."),
    "log": ("llem.cli.log:app", "Look into segments: info, cat, verify, recover, redact, digest."),
    "doctor": ("llem.cli.doctor:doctor", "Say what can be measured here, what not and why, and the fix."),
}
OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
ANYWHERE = frozenset({"-q", "--quiet", "-v", "-vv", "-vvv", "--verbose", "-V", "--version"})


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    console.set_up()
    status = _status_of(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except OutputError as error:
        status = _cannot_write(error)
    sys.exit(status)


def _status_of(arguments: list[str]) -> int | str | None:
    chosen = _command(_words_to_complete() or arguments)
    try:
        _check_text(arguments)
        app = build_app(chosen)
        arguments, program = split_program(arguments) if chosen in ("measure", "study") else (arguments, [])
        app(args=options_first(arguments), prog_name="llem", obj=program)
    except SystemExit as ended:
        return ended.code
    except OutputError as error:
        return _cannot_write(error)
    except (LlemError, LogError) as error:
        console.complain(str(error))
        return exit_status(error)
    except KeyboardInterrupt:
        return console.INTERRUPTED
    except OSError as error:
        if error.filename is None and error.errno not in OF_DISKS:
            _complain_of_bug(error, arguments)
            return console.INTERNAL
        # a file that cannot be used is no fault of llem, wherever it shows
        console.complain(f"{error.filename or 'a file'} cannot be used: {error.strerror}")
        return console.WRONG
    except Exception as error:  # noqa: BLE001 -- the command line's outermost frame: no traceback unless asked for
        _complain_of_bug(error, arguments)
        return console.INTERNAL
    return 0


def _check_text(arguments: Sequence[str]) -> None:
    """Raises PlanError for an argument that is not UTF-8: it could be neither stored nor shown."""
    for number, argument in enumerate(arguments, start=1):
        if not is_text(argument):
            raise PlanError(f"argument {number} is not UTF-8", found=ascii(argument[:80]))


def _cannot_write(error: OutputError) -> int:
    """Nothing more can be said on stdout; that its reader has gone, as with `| head`, is no error."""
    console.discard_output()
    if isinstance(error, console.ReaderGone):
        return 0
    console.complain(str(error))
    return error.exit_status


def _command(words: Sequence[str]) -> str | None:
    return next((word for word in words if not word.startswith("-")), None)


def _words_to_complete() -> list[str]:
    """The command line that a shell wants completed, in the variables that typer's completion scripts set."""
    written = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    return written.split()[1:] if "_LLEM_COMPLETE" in os.environ else []


def build_app(chosen: str | None) -> typer.Typer:
    """The application with the chosen command loaded; the others are only names with their help."""
    app = typer.Typer(
        cls=CommandGroup,
        help="Measure what running a language model costs, and ask afterwards. -q, -v and -V may follow the command.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
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
    program = list(arguments[at + 1 :])
    if not program:
        raise PlanError("--", found="nothing behind it", expected="a program and its arguments")
    return list(arguments[:at]), program


def options_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the options of every command before the command's name, wherever they were written."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [word for word in arguments[:end] if word in ANYWHERE]
    return [*ours, *(word for word in arguments[:end] if word not in ANYWHERE), *arguments[end:]]


def exit_status(error: LlemError | LogError) -> int:
    """2 for wrong input, 3 for damaged data."""
    if isinstance(error, LlemError):
        return error.exit_status
    return 3 if isinstance(error, CorruptError) else 2


def _root(
    version: bool = typer.Option(
        False,
        "-V",
        "--version",
        help="Print the version and exit.",
        is_eager=True,
        callback=lambda asked: _version(asked),
    ),
    verbose: int = typer.Option(
        0, "-v", "--verbose", count=True, help="More on stderr; -vv adds tracebacks."
    ),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="Only errors on stderr."),
) -> None:
    console.set_verbosity(verbose, quiet=quiet)


def _version(asked: bool) -> None:
    if asked:
        console.say(importlib.import_module("llem").__version__)
        raise typer.Exit


def _unloaded() -> None:
    """Stands for a command that was not chosen."""


def _complain_of_bug(error: Exception, arguments: Sequence[str]) -> None:
    console.complain(f"internal error: {type(error).__name__}: {error}; run again with -vv for the traceback")
    if _asks_for_tracebacks(arguments):
        console.note("".join(traceback.format_exception(error)).rstrip())


def _asks_for_tracebacks(arguments: Sequence[str]) -> bool:
    """Whether -vv stands there: a command can break while it is loaded, before any option of it is read."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    short = sum(word.count("v") for word in arguments[:end] if word in {"-v", "-vv", "-vvv"})
    return short + list(arguments[:end]).count("--verbose") >= 2
