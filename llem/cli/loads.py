"""Several loads on one server: `--rate 4,8,16` is an experiment for each, `--find max-rate` as many as it takes; then a line for each."""

import importlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from llem.errors import PlanError
from llem.plan import Plan

if TYPE_CHECKING:
    from llem.results import ExperimentResult

MAX_LOADS = 100
MAX_TRIES = 16
MAX_HALVINGS = 4  # of a rate that does not hold, before a search is given up
CLOSE = 1.2  # where what holds and what does not are so near, one try in between leaves them within a tenth, and is the last
KINDS = {"load.rate": "open", "load.concurrency": "closed"}
COLUMNS = ("output tokens/s", "J/output token", "source", "ttft p99 ms", "tpot p99 ms", "verdict")
# objective -> the statistic that has to meet it
OBJECTIVES = {"ttft_ms": "ttft_p99_ms", "tpot_ms": "tpot_vllm_p99_ms", "e2e_ms": "e2e_p99_ms"}


class Load(NamedTuple):
    """One key of the plan, and its value."""

    key: str
    number: float


class Course(Protocol):
    """Which load is measured next."""

    def next(self) -> Load | None:
        """None: all are done."""

    def take(self, load: Load, result: "ExperimentResult | None") -> None:
        """What came of one."""

    @property
    def ends_with_this(self) -> bool:
        """Whether the load given last is taken to be the last, so that it ends the server; if it was not, the next starts one of its own."""


class Given:
    """Loads that were named, one after the other."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self._left = list(loads)

    def next(self) -> Load | None:
        return self._left.pop(0) if self._left else None

    def take(self, load: Load, result: "ExperimentResult | None") -> None:
        """They are measured whatever comes."""

    @property
    def ends_with_this(self) -> bool:
        return not self._left


class Search:
    """The highest rate that holds the objectives: doubled while it does, halved until one does, then in between."""

    def __init__(self, objectives: Mapping[str, float], *, start: float) -> None:
        self._objectives = objectives
        self._rate, self._tries = start, 0
        self._is_last = self._is_over = False
        self._late: set[float] = set()  # the rates at which the load process itself was too late
        self.holds: float | None = None
        self.fails: float | None = None

    def next(self) -> Load | None:
        if self._is_last or self._is_hopeless:
            self._is_over = True
            return None
        if self.holds is not None or self.fails is not None:
            self._rate = self._between()
        self._tries += 1
        self._is_last = self._tries == MAX_TRIES or self._is_close
        return Load("load.rate", self._rate)

    def take(self, load: Load, result: "ExperimentResult | None") -> None:
        if result is not None and meets(result, self._objectives):
            self.holds = load.number
        else:
            self.fails = load.number
        if result is not None and "client_saturated" in {reason.code for reason in result.invalid_reasons}:
            self._late.add(load.number)

    @property
    def ends_with_this(self) -> bool:
        """Whatever comes of it; where none has held so far, if this one does not either."""
        return self._is_last or self._is_hopeless

    def told(self) -> str:
        """What was found."""
        limits = ", ".join(f"{name} <= {limit:g}" for name, limit in self._objectives.items())
        asked = f"{limits} (99th percentiles)"
        so_far = "" if self._is_over else "the search was stopped before its end; so far "
        if self.holds is None and self.fails is None:
            return f"{so_far}no rate was measured"
        beyond = "none tried does not" if self.fails is None else f"{self.fails:g} does not{self._doubt()}"
        if self.holds is None:
            return f"{so_far}no rate tried holds {asked}; {beyond}"
        return f"{so_far}the highest rate that holds {asked} is {self.holds:g} requests/s; {beyond}"

    def _doubt(self) -> str:
        """Where the first rate that does not hold may be no limit of the server's."""
        if self.fails not in self._late:
            return ""
        return ", but there the load process itself was late, so that it may be no limit of the server's"

    @property
    def _is_hopeless(self) -> bool:
        return self.holds is None and self._tries > MAX_HALVINGS

    @property
    def _is_close(self) -> bool:
        return self.holds is not None and self.fails is not None and self.fails / self.holds <= CLOSE

    def _between(self) -> float:
        if self.fails is None:
            return 2 * (self.holds or self._rate)
        return self.fails / 2 if self.holds is None else (self.holds + self.fails) / 2


def meets(result: "ExperimentResult", objectives: Mapping[str, float]) -> bool:
    """Whether the 99th percentiles do, from when requests were due, and no more failed than a valid result may have."""
    if {reason.code for reason in result.invalid_reasons} & {"failed_requests", "incomplete"}:
        return False
    found = (getattr(result.latency_stats, OBJECTIVES[name], None) for name in objectives)
    return all(
        value is not None and value <= limit for value, limit in zip(found, objectives.values(), strict=True)
    )


def loads_of(*, rate: str | None, concurrency: str | None) -> list[Load]:
    """What was named, in order. Raises PlanError."""
    if rate is not None and concurrency is not None:
        raise PlanError("--rate and --concurrency", found="both", expected="one of them")
    if rate is not None:
        return [Load("load.rate", number) for number in _numbers("--rate", rate, "load.rate")]
    if concurrency is not None:
        numbers = _numbers("--concurrency", concurrency, "load.concurrency")
        if any(number != int(number) for number in numbers):
            raise PlanError(
                "--concurrency", found=repr(concurrency), expected="whole numbers, separated by commas"
            )
        return [Load("load.concurrency", int(number)) for number in numbers]
    return []


def course_of(loads: Sequence[Load], *, find: str | None, slo: str | None) -> Course | None:
    """How several experiments follow each other; None for one. Raises PlanError."""
    if find is None and slo is None:
        return Given(loads) if len(loads) > 1 else None
    if find != "max-rate":
        raise PlanError("--find", found=find or "only --slo", expected="max-rate")
    if len(loads) > 1 or any(load.key != "load.rate" for load in loads):
        raise PlanError(
            "--find max-rate", found="several loads", expected="one --rate to begin with, or none"
        )
    return Search(_objectives(slo), start=loads[0].number if loads else 1.0)


def _objectives(written: str | None) -> dict[str, float]:
    expected = f"some of {', '.join(OBJECTIVES)}, such as --slo ttft_ms=200,tpot_ms=20"
    found: dict[str, float] = {}
    for word in (written or "").split(","):
        name, _, number = word.partition("=")
        if name.strip() not in OBJECTIVES:
            raise PlanError("--slo", found=repr(written or ""), expected=expected)
        (found[name.strip()],) = _numbers("--slo", number, name.strip())
    return found


def _numbers(option: str, written: str, key: str) -> list[float]:
    try:
        numbers = [float(word) for word in written.split(",")]
    except ValueError:
        raise PlanError(option, found=repr(written), expected="numbers, separated by commas") from None
    if any(number <= 0 or not math.isfinite(number) for number in numbers):
        raise PlanError(f"{option}, which is {key}", found=repr(written), expected="numbers above 0")
    if len(numbers) > MAX_LOADS:
        raise PlanError(option, found=f"{len(numbers)} of them", expected=f"at most {MAX_LOADS}")
    return numbers


def under(plan: Plan, load: Load) -> Plan:
    """The plan with this load, which is also a label, so that its experiments are told apart."""
    key = load.key.rpartition(".")[2]
    number = int(load.number) if key == "concurrency" else load.number
    section = msgspec.structs.replace(plan.load, **{"kind": KINDS[load.key], key: number})
    labels = plan.labels | {load.key: f"{load.number:g}"}
    return msgspec.structs.replace(plan, load=section, labels=labels)


def write_curve(measured: "Sequence[tuple[Load, ExperimentResult | None]]") -> None:
    """A row for each load on stderr, lowest first: what came of it, what a token cost, and whether to believe it."""
    # only now, when nothing is measured any more
    table = importlib.import_module("llem.cli.table")
    ordered = sorted(measured, key=lambda pair: pair[0].number)
    rows = [[_shown(cell) for cell in (load.number, *_of(result))] for load, result in ordered]
    what = measured[0][0].key.rpartition(".")[2]
    table.write_table(sys.stderr, [what, *COLUMNS], rows, instead="llem runs")


def _shown(cell: Any) -> Any:
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell


def _of(result: "ExperimentResult | None") -> Iterator[Any]:
    if result is None:
        yield from (None, None, None, None, None, "not measured")
        return
    yield from (result.output_tokens_per_second, result.energy_per_output_token_j, result.energy_source)
    yield from (getattr(result.latency_stats, name, None) for name in ("ttft_p99_ms", "tpot_vllm_p99_ms"))
    yield "valid" if result.valid else "not valid"
