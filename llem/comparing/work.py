"""Whether groups did the same work: joules and seconds of whole runs say nothing where they did not."""

from collections.abc import Iterator, Sequence
from typing import Any

from llem.comparing.compared import UNKNOWN, Compared
from llem.comparing.groups import Group

WHOLE_RUNS = ("total_energy_j", "duration_sec")  # of which more work takes more
PER_TOKEN = ("energy_per_output_token_j", "avg_energy_per_token_j")  # what is compared instead


def is_other_work(reference: Group, group: Group, margin: float) -> bool:
    """Whether one did more than the other by more than a difference that does not matter."""
    means = _work((reference, group))[1]
    return None not in means and abs(means[1] / means[0] - 1) > margin


def tells_of_tokens(group: Group) -> bool:
    """Whether some figure says what a token took."""
    return any(run[per_token] is not None for per_token in PER_TOKEN for run in group.runs)


def other_work(
    reference: Group, apart: Sequence[Group], compared: Sequence[Compared], *, is_left_out: bool
) -> Iterator[str]:
    """That runs of a group did more than those of another, where figures of whole runs are compared or would have been."""
    if apart and (is_left_out or any(each.figure.name in WHOLE_RUNS for each in compared)):
        what, means = _work((reference, *apart))
        first, *others = (UNKNOWN if mean is None else f"{mean:,.5g}" for mean in means)
        beside = ", ".join(f"{mean} of {group.name}" for mean, group in zip(others, apart, strict=True))
        meaning = "are not compared" if is_left_out else "do not tell which takes less"
        yield (
            f"the work is not the same: {first} {what} a run of {reference.name}, {beside}: "
            f"energy and duration of whole runs {meaning}"
        )


def _work(groups: Sequence[Group]) -> tuple[str, list[Any]]:
    """Requests of a run of each group, else tokens where the first two do not tell requests; None where a run does not tell."""
    for column in ("requests", "tokens"):
        means = [_mean([run["totals"][column] for run in group.runs]) for group in groups]
        if None not in means[:2]:
            break
    return column, means


def _mean(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count]
    return sum(known) / len(known) if len(known) == len(counts) else None
