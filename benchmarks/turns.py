"""Two programs that take turns: while one computes, every process of the other is stopped.

Both meet the same machine that way, whatever else it does, and a ratio of their rates comes from two neighbouring turns. They
start anew in every round, because where a process' memory happens to lie makes it some per cent faster or slower for as long as it lives.
Rates are taken per second, and per CPU second of the thread that computes: on a busy machine that thread waits for a core much of the time,
by chance. What the second rate does not see is a thread that waits for the program's other threads.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

TURN_S = 0.5
STEPS_PER_TURN = 5
FLUSHED_S = 2.0  # after which what a program has done is in its files
Program = subprocess.Popen[bytes]


class Step(NamedTuple):
    """When a step of a program's work ended, and how much of it was done in it."""

    end_ns: int
    amount: int


class Turn(NamedTuple):
    """When a program was free to run, and how long its busiest main thread computed in it."""

    began_ns: int
    ended_ns: int
    computed_ns: int

    @property
    def computing(self) -> float:
        """The share of a core that this thread had."""
        return self.computed_ns / (self.ended_ns - self.began_ns)

    def rate(self, steps: Sequence[Step]) -> float | None:
        """Amount per second over the steps that began and ended in it; None where there are fewer than two."""
        within = [step for step in steps if self.began_ns < step.end_ns < self.ended_ns]
        if len(within) < 3:
            return None
        return sum(step.amount for step in within[1:]) / (within[-1].end_ns - within[0].end_ns) * 1e9


class Rates(NamedTuple):
    """Amounts per second in two neighbouring turns, and how much of a core the computing threads had meanwhile."""

    ours: float
    peer: float
    computing: tuple[float, float]

    @property
    def ratio(self) -> float:
        """1 means as fast as the peer."""
        return self.ours / self.peer

    @property
    def ratio_per_cpu_s(self) -> float:
        """The same, per second in which the threads computed."""
        ours, peer = self.computing
        return self.ratio * peer / ours


def take_turns(
    programs: tuple[Program, Program], steps: Callable[[], tuple[list[Step], list[Step]]], *, pairs: int
) -> list[Rates]:
    """Let two programs that are starting take `pairs` turns each; `steps` finds what both have done so far."""
    turn_s = _wait_until_both_work(programs, steps)
    for program in programs:
        _signal(program, signal.SIGSTOP)
    turns = [(_take_turn(programs[0], turn_s), _take_turn(programs[1], turn_s)) for _ in range(pairs)]
    for program in programs:
        _signal(program, signal.SIGCONT)
    time.sleep(FLUSHED_S)
    found = steps()
    rates = [[turn.rate(each) for turn, each in zip(pair, found, strict=True)] for pair in turns]
    computing = [(ours.computing, peer.computing) for ours, peer in turns]
    return [
        Rates(ours, peer, shares)
        for (ours, peer), shares in zip(rates, computing, strict=True)
        if ours and peer
    ]


def figures(rounds: Sequence[Sequence[Rates]]) -> dict[str, float]:
    """What a benchmark prints of them: medians over all pairs of turns. Says on stderr how far they lie apart."""
    rates = [each for one in rounds for each in one]
    for name, ratios in (
        ("", [[each.ratio for each in one] for one in rounds]),
        ("per CPU s: ", [[each.ratio_per_cpu_s for each in one] for one in rounds]),
    ):
        low, _, high = statistics.quantiles([ratio for one in ratios for ratio in one], n=4)
        each_round = ", ".join(f"{statistics.median(one):.3f}" for one in ratios)
        print(f"{name}rounds {each_round}; half of all ratios from {low:.3f} to {high:.3f}", file=sys.stderr)
    return {
        "ours": statistics.median(each.ours for each in rates),
        "peer": statistics.median(each.peer for each in rates),
        "ratio": statistics.median(each.ratio for each in rates),
        "ratio_per_cpu_s": statistics.median(each.ratio_per_cpu_s for each in rates),
        "n": len(rates),
    }


def printed_steps(path: Path) -> list[Step]:
    """The lines "end in ns, amount" that a program has printed so far."""
    lines = path.read_text().splitlines(keepends=True)
    return [Step(*map(int, line.split())) for line in lines if line.endswith("\n")]


def _wait_until_both_work(
    programs: Sequence[Program], steps: Callable[[], tuple[list[Step], list[Step]]]
) -> float:
    """Seconds that a turn should last."""
    while min(map(len, found := steps())) < STEPS_PER_TURN:
        if any(program.poll() is not None for program in programs):
            raise SystemExit("one of the programs ended early; run `llem measure` by hand to see why")
        time.sleep(1)
    slowest_s = max((each[-1].end_ns - each[0].end_ns) / (len(each) - 1) / 1e9 for each in found)
    return max(TURN_S, STEPS_PER_TURN * slowest_s)


def _take_turn(program: Program, seconds: float) -> Turn:
    before_ns = _computed_ns(program)
    began_ns = time.monotonic_ns()
    _signal(program, signal.SIGCONT)
    time.sleep(seconds)
    ended_ns = time.monotonic_ns()
    _signal(program, signal.SIGSTOP)
    computed_ns = _computed_ns(program)
    return Turn(began_ns, ended_ns, max(computed_ns[pid] - before_ns.get(pid, 0) for pid in computed_ns))


def _computed_ns(program: Program) -> dict[int, int]:
    """CPU time of the main thread of each of its processes."""
    return {pid: int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in _family(program.pid)}


def _signal(program: Program, number: signal.Signals) -> None:
    for pid in _family(program.pid):
        os.kill(pid, number)


def _family(pid: int) -> list[int]:
    """A process and all its descendants, the parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found
