"""llem measure."""

import importlib
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import msgspec
import typer

from llem.cli import completing, console
from llem.cli.loads import Course, Load, Search, course_of, loads_of, under, write_curve
from llem.cli.max_time import MaxTimeOption, limit_of
from llem.cli.options import JsonOption, SettingsOption, StoreOption, key_and_value
from llem.cli.outlook import outlook
from llem.cli.progress import progress_line
from llem.errors import ExportError, OutputError, PlanError
from llem.export import target
from llem.measure.children import Interruptions
from llem.measure.launch import Rank, launch_of
from llem.measure.outcome import Outcome
from llem.measure.preflight import check_plan
from llem.measure.rank_member import RefusedError
from llem.measure.shared_server import SharedServer
from llem.measure.supervisor import measure as run_measurement
from llem.measure.time_limit import TimeLimit
from llem.meters import MeterChoice
from llem.plan import Plan
from llem.plan_file import resolve_plan
from llem.plan_toml import to_toml
from llem.registry import ENGINES, METERS, SERVERS, one_of
from llem.store import Store
from llem_events.secrets import scrub_value

if TYPE_CHECKING:
    from llem.results import ExperimentResult


def measure(
    context: typer.Context,
    plan_path: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN.toml", help="The plan; options win over it.", show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Preset, local folder or hub name.")] = None,
    weights: Annotated[str | None, typer.Option(help="random or pretrained.")] = None,
    engine: Annotated[
        str | None, typer.Option(help=f"{one_of(*ENGINES)}.", autocompletion=completing.one_of_these(ENGINES))
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|URL",
            help=f"{one_of(*SERVERS)}, or the address of one that runs.",
            autocompletion=completing.one_of_these(SERVERS),
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="R[,R]",
            help="Requests a second to a server, whenever it answers; several: an experiment each, under one server.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N]",
            help="Requests that are always in flight to a server; several, likewise.",
            show_default=False,
        ),
    ] = None,
    find: Annotated[
        str | None,
        typer.Option(
            metavar="max-rate",
            help="Search the highest rate of a server that holds --slo.",
            show_default=False,
        ),
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="K=V[,K=V]",
            help="What --find holds, of 99 in 100 requests: ttft_ms, tpot_ms, e2e_ms.",
            show_default=False,
        ),
    ] = None,
    meter: Annotated[
        str | None,
        typer.Option(
            help=f"{one_of('auto', *METERS)}; one of GPUs and one of the CPU together as nvml,rapl.",
            autocompletion=completing.one_of_these(["auto", *METERS]),
        ),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="0,1", help="GPUs by index or UUID; one process each.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes.")] = None,
    sample_hz: Annotated[
        float | None, typer.Option(help="Samples per second and device, at most 100.")
    ] = None,
    baseline_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Take the idle baseline of an earlier run.", autocompletion=completing.run
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to find the experiment by.")] = None,
    settings: SettingsOption = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Stored with the experiment.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when the result is not valid.")] = False,
    json: JsonOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the result, or the plan of --dry-run, to a new file.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check model, options and prompts, print the resolved plan, how long it takes and on which devices, and stop.",
        ),
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Show power, energy, tokens and what is missing to be valid as it goes."),
    ] = False,
    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE", help="When it has ended, bring the run into this store too.", show_default=False
        ),
    ] = None,
    max_time: MaxTimeOption = None,
    share: Annotated[
        bool, typer.Option("--share", help="Let several ranks of a launcher use one GPU.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Measure a model on this machine, a server, or any program: llem measure -- PROGRAM ARGUMENTS.

    What follows -- is put at the end of the server's own command line where --server names one.
    """
    program: list[str] = context.obj or []
    loads = loads_of(rate=rate, concurrency=concurrency)
    course = course_of(loads, find=find, slo=slo)
    options: dict[str, object] = {
        "model.name": model,
        "model.weights": weights,
        "engine.name": engine,
        **_served_by(server),
        **dict(loads[:1]),
        **_meters(meter),
        "meter.sample_hz": sample_hz,
        "devices.gpus": gpu.split(",") if gpu is not None else None,
        "devices.workers": workers,
        "windows.baseline_from": baseline_from,
        "name": name,
        **{f"labels.{key}": value for key, value in map(key_and_value, label or ())},
    }
    plan = resolve_plan(plan_path, options=options, settings=settings or ())
    if plan.is_served:
        plan, program = _with_arguments(plan, program), []
    elif loads or course is not None:
        raise PlanError(
            "--rate, --concurrency and --find", found="no server", expected="--server NAME or --server URL"
        )
    _check_together(course, output, is_live_program=live and bool(program))
    limit = limit_of(max_time, [plan], is_program=bool(program))
    if dry_run:
        check_plan(plan, command=program)
        _write_plan(plan, _Form(json=json, output=output, program=False))
        for line in outlook(plan, program, loads=max(1, len(loads))):
            console.note(f"llem: {line}")
        return
    place = Store.locate(store)
    collection = None if collect is None else _module("collect").collection(collect, place)
    form = _Form(json=json, output=output, program=bool(program))
    launch = launch_of(os.environ)
    for contradiction in launch.contradictions:
        console.complain(contradiction)
    part = _Part(launch.rank, share, collection, limit)
    if course is not None:
        part.check_alone()
        status = _measure_in_turn(plan, course, place, form, part, strict=strict, live=live)
    elif part.rank is not None and not part.rank.leads:
        status = _measure_as_follower(plan, place, program, part, strict=strict)
    else:
        status = _measure_and_tell(plan, place, program, form, part, strict=strict, live=live)
    sys.exit(status)


def _check_together(course: Course | None, output: Path | None, *, is_live_program: bool) -> None:
    """Raises PlanError for options that exclude each other, ExportError for a file that cannot be written."""
    if course is not None and output is not None:
        raise PlanError("--output", found="several loads", expected="one, or llem export afterwards")
    if is_live_program:
        raise PlanError(
            "--live",
            found="a program, which writes to the same terminal",
            expected="none",
            hint="`llem watch` shows the same in another terminal",
        )
    if output is not None and not target.is_stdout(output):
        target.check(output.resolve(), force=False, hint="name a new file")


@dataclass(slots=True)
class _Part:
    """Which part of an experiment is measured here, how long it may take, and where its log is brought."""

    rank: Rank | None
    share: bool
    collection: Store | None
    limit: TimeLimit | None
    status: int = console.DONE  # of bringing it there

    @property
    def is_collected_first(self) -> bool:
        """Several ranks bring their logs together before there is a result."""
        return self.rank is not None and self.collection is not None

    def collect(self, outcome: Outcome) -> None:
        self.status = _collect(outcome, self.collection)

    def check_alone(self) -> None:
        """Raises PlanError where several ranks measure."""
        if self.rank is not None:
            raise PlanError(
                "several loads", found=f"rank {self.rank.rank} of {self.rank.size}", expected="one process"
            )


def _measure_and_tell(
    plan: Plan, place: Store, program: list[str], form: "_Form", part: _Part, *, strict: bool, live: bool
) -> int:
    """Measure, alone or as rank 0, and print the result; the status of both."""
    with Interruptions():
        outcome = _run(plan, place, program, strict=strict, is_for_programs=form.json, live=live, part=part)
        if part.is_collected_first and part.collection is not None and outcome.folder is not None:
            # the logs of the other ranks may lie only there
            place = part.collection
            outcome = replace(outcome, folder=place.log_path.absolute() / outcome.experiment_id)
        elif part.rank is not None:
            _say_what_lies_elsewhere(outcome)
        result, was_shown = _report(outcome, place, form)
        if not part.is_collected_first:
            part.collect(outcome)
    return console.status_of_measurement(outcome, result, strict=strict, shown=was_shown) or part.status


def _say_what_lies_elsewhere(outcome: Outcome) -> None:
    """Ranks whose stores are not this one have logs that no result here can be made of."""
    here = 0 if outcome.folder is None else len(list(outcome.folder.glob("worker-*")))
    if here < outcome.processes:
        console.note(
            f"llem: logs of {outcome.processes - here} of {outcome.processes} processes are not in this store: "
            "`llem collect`, or --collect from the beginning, brings those of other hosts together"
        )


def _measure_as_follower(plan: Plan, store: Store, program: list[str], part: _Part, *, strict: bool) -> int:
    """A part of the experiment that rank 0 prints the result of; the status of this part."""
    try:
        outcome = run_measurement(
            plan,
            store,
            command=program,
            strict=strict,
            rank=part.rank,
            may_share=part.share,
            limit=part.limit,
            collect=part.collect if part.is_collected_first else None,
        )
    except RefusedError as error:
        return error.exit_status
    _complain_of(outcome)
    return console.status_of_part(outcome) or part.status


def _measure_in_turn(
    plan: Plan,
    course: Course,
    place: Store,
    form: "_Form",
    part: _Part,
    *,
    strict: bool,
    live: bool,
) -> int:
    """One load after the other under one server, until one is interrupted or cannot be measured; the worst status of all."""
    measured: list[tuple[Load, ExperimentResult | None]] = []
    statuses: list[int] = []
    with Interruptions(), SharedServer(plan) as server:
        while (load := course.next()) is not None:
            if measured and part.limit is not None and not part.limit.fits(plan, is_program=False):
                console.note(f"llem: {part.limit.cause} leaves no time for another load")
                statuses.append(console.FAILED)
                break
            outcome = _run(
                server.plan_of(under(plan, load)),
                place,
                [],
                strict=strict,
                is_for_programs=form.json,
                live=live,
                part=part,
                server=server,
                keeps_server=not course.ends_with_this,
            )
            result, was_shown = _report(outcome, place, form)
            if not outcome.interrupted:
                course.take(load, result)
            measured.append((load, result))
            statuses.append(console.status_of_measurement(outcome, result, strict=strict, shown=was_shown))
            statuses.append(_collect(outcome, part.collection))
            if outcome.interrupted or not outcome.has_measured:
                break
    write_curve(measured)
    if isinstance(course, Search):
        console.note(f"llem: {course.told()}")
    return max(statuses)


def _meters(written: str | None) -> dict[str, object]:
    """The keys that `--meter` fills: the first is that of the total."""
    if written is None:
        return {}
    name, *also = (word.strip() for word in written.split(","))
    return {"meter.name": name, "meter.also": also}


def _served_by(server: str | None) -> dict[str, object]:
    """The keys of the plan that --server sets."""
    if server is None or "://" not in server:
        if server is not None and ":" in server:
            raise PlanError(
                "--server", found=server, expected=f"a server's name or an address: http://{server}"
            )
        return {"server.kind": server}
    return {"server.kind": "url", "server.url": server}


def _with_arguments(plan: Plan, arguments: list[str]) -> Plan:
    """What follows -- at the end of the server's command line. Raises PlanError for a server that runs already."""
    if plan.server.url is not None and arguments:
        raise PlanError("--", found=arguments[0], expected="nothing behind it for a server that runs already")
    args = [*plan.server.args, *arguments]
    return msgspec.structs.replace(plan, server=msgspec.structs.replace(plan.server, args=args))


@dataclass(frozen=True, slots=True)
class _Form:
    """How and where the result is written: that of a program on stderr, because stdout is the program's own."""

    json: bool
    output: Path | None
    program: bool

    def stream(self) -> AbstractContextManager[TextIO]:
        if self.output is not None and not target.is_stdout(self.output):
            return target.text_file(self.output, force=False)
        return nullcontext(sys.stderr if self.program and self.output is None else sys.stdout)


def _write_plan(plan: Plan, form: _Form) -> None:
    """The plan without secrets, in a form that is a plan again."""
    readable = msgspec.convert(scrub_value(msgspec.to_builtins(plan)), Plan)
    text = msgspec.json.encode(readable).decode() if form.json else to_toml(readable).rstrip()
    with form.stream() as out:
        console.write_line(out, text)


def _run(
    plan: Plan,
    store: Store,
    program: list[str],
    *,
    strict: bool,
    is_for_programs: bool,
    live: bool,
    part: "_Part",
    server: SharedServer | None = None,
    keeps_server: bool = False,
) -> Outcome:
    is_drawn = live and not console.is_quiet() and console.can_be_drawn_over(sys.stderr)
    is_unseen = bool(program) or (is_for_programs and not sys.stderr.isatty())
    shown: AbstractContextManager[Any] = (
        _module("panel").live_panel(store) if is_drawn else progress_line(quiet=is_unseen)
    )
    with shown as line:

        def begin(experiment_id: str, meter: MeterChoice) -> None:
            _say_what_starts(experiment_id, meter)
            if program:
                _say_when_it_starts(plan, program)
            if is_drawn:
                line.begin(experiment_id)

        return run_measurement(
            plan,
            store,
            command=program,
            strict=strict,
            server=server,
            keeps_server=keeps_server,
            rank=part.rank,
            may_share=part.share,
            limit=part.limit,
            collect=part.collect if part.is_collected_first else None,
            on_start=begin,
            on_progress=line.update,
        )


def _say_what_starts(experiment_id: str, meter: MeterChoice) -> None:
    """The id, and what stands in the place of a meter that could measure."""
    console.note(f"llem: run {experiment_id}")
    if meter.rejected:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in meter.rejected.items())
        console.complain(f"meter {meter.name}, because better ones cannot be read: {reasons}")


def _say_when_it_starts(plan: Plan, program: list[str]) -> None:
    """The terminal is the program's, so that no line tells of the seconds before it."""
    windows = plan.windows
    if windows.baseline_s >= 1 and windows.baseline_from is None:
        name = Path(program[0]).name
        console.note(f"llem: idle power is measured for {windows.baseline_s:g} s, then {name} starts")


def _report(outcome: Outcome, store: Store, form: _Form) -> "tuple[ExperimentResult | None, bool]":
    """Say how it ended and print the result, if there is one, and whether that went well; only now is the database loaded."""
    _complain_of(outcome)
    if outcome.folder is None:
        console.note(f"llem: nothing is kept of run {outcome.experiment_id}")
        return None, False
    now = Store(outcome.folder.parent.parent)
    if outcome.folder != now.log_path / outcome.experiment_id:
        console.complain(f"run {outcome.experiment_id} was moved out of its store, to {outcome.folder}")
        return None, False
    if now.path != store.path.absolute():
        console.note(f"llem: store {store.path} was moved while it was measured, to {now.path}")
    if outcome.interrupted:
        console.note(
            f"llem: interrupted by {outcome.interrupted_by}; what was measured is kept as {outcome.experiment_id}"
        )
    elif not outcome.is_complete:
        console.note(f"llem: what there is of it is kept as {outcome.experiment_id}")
    return _result(outcome, now, form) if outcome.has_measured else (None, False)


def _collect(outcome: Outcome, into: Store | None) -> int:
    """Bring the run into another store, and say so; the status of that."""
    if into is None or outcome.folder is None:
        return console.DONE
    status: int = _module("collect").collect_run(outcome.folder, into)
    return status


def _complain_of(outcome: Outcome) -> None:
    for failure in outcome.failures:
        who = "" if failure.process_index is None else f"process {failure.process_index} "
        console.complain(f"{who}failed while {failure.stage}: {failure.text}")


def _result(outcome: Outcome, store: Store, form: _Form) -> "tuple[ExperimentResult | None, bool]":
    try:
        derived = _module("show").new_result(store, outcome.experiment_id)
        if derived is None:
            return None, False
        result, facts = derived
        return result, _is_shown(result, facts, form)
    except KeyboardInterrupt:
        console.note(f"llem: run {outcome.experiment_id} is kept; `llem show` shows its result")
        raise


def _is_shown(result: "ExperimentResult", facts: Any, form: _Form) -> bool:
    """Print it where it was asked for, else on stderr; a reader that has seen enough is no failure."""
    write = _module("show").write
    try:
        with form.stream() as out:
            write(out, result, facts, json=form.json)
    except console.ReaderGone:
        console.discard_output()
    except (OutputError, ExportError) as error:
        console.discard_output()
        console.complain(f"the result of {result.experiment_id} goes to standard error: {error}")
        write(sys.stderr, result, facts, json=form.json)
        return False
    return True


def _module(name: str) -> Any:
    """Part of the command line that loads the database."""
    return importlib.import_module(f"llem.cli.{name}")
