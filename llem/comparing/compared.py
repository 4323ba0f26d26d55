"""One figure of one group beside that of the reference, with what its energy comes from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llem.comparing.groups import OF_A_SITE, Group, Run, paired
from llem.results.batch_means import PARTS
from llem.results.comparison import Comparison, compare, outliers, within_runs
from llem.results.figures import Figure

# What a sensor's error makes wrong by the same share.
ENERGIES = frozenset(
    ("total_energy_j", "avg_energy_per_token_j", "energy_per_output_token_j", "mean_power_w", *OF_A_SITE)
) - {"embodied_carbon_g"}
OF_ENERGY = frozenset(("J", "1/J", "W", "kWh", "1/kWh"))  # units of what comes from a sensor, or is estimated
SET_POWER = "power_limit_set_w"  # which nobody measured
WITHIN_RUN = "e2e_mean_ms"  # the figure of which a run's own spread is known: llem.results.batch_means
SENSED = frozenset(("counter", "integrated"))
UNKNOWN = "unknown"  # source of an energy that another program measured and does not tell of
# Of a comparison in rows: column -> DuckDB's type, whatever is NULL in them.
TYPES = {
    **dict.fromkeys(("group", "figure", "unit"), "VARCHAR"),
    **dict.fromkeys(("reference_runs", "runs"), "BIGINT"),
    **dict.fromkeys(("reference", "value", "ratio", "ratio_low", "ratio_high"), "DOUBLE"),
    **dict.fromkeys(("p", "p_adjusted"), "DOUBLE"),
    **dict.fromkeys(("method", "verdict"), "VARCHAR"),
    "within_margin": "BOOLEAN",
    "reason": "VARCHAR",
    "repeats_needed": "BIGINT",
    **dict.fromkeys(("energy_bound", "within_run_low", "within_run_high"), "DOUBLE"),
    "outliers": "VARCHAR[]",
    "energy_source": "VARCHAR",
}
COLUMNS = tuple(TYPES)


class Compared(NamedTuple):
    """One figure of one group beside that of the reference."""

    group: str
    figure: Figure[Any]
    comparison: Comparison
    # what the sensors may be off by, as a share; None where that is unknown, or the figure no energy
    energy_bound: float | None
    energy_source: str | None  # counter, integrated, estimated, simulated or unknown; None of no energy
    # of one run each, the ratio's interval by the spread within them: not from run to run
    within_run: tuple[float, float] | None
    # runs of either group that are far from the others of theirs: marked, and never left out
    outliers: list[str]

    @property
    def is_worse(self) -> bool:
        """Whether the difference is one that nobody wants."""
        return self.comparison.verdict == {"lower": "higher", "higher": "lower"}.get(self.figure.better or "")


def compared_with(
    reference: Group, group: Group, figure: Figure[Any], *, level: float, margin: float
) -> Compared:
    """In pairs of one block where every run has its partner; as two samples else."""
    pairs = paired(reference, group)
    before = [run for run, _ in pairs] if pairs else reference.runs
    after = [run for _, run in pairs] if pairs else group.runs
    comparison = compare(
        [run[figure.name] for run in before],
        [run[figure.name] for run in after],
        paired=pairs is not None,
        level=level,
        margin=margin,
    )
    bounds = [run["energy_bound"] for run in (*before, *after)]
    bound = None if figure.name not in ENERGIES or None in bounds else max(bounds)
    source = energy_source(figure, [*before, *after])
    within = _within_run(figure, comparison, [*before, *after], level)
    far = [*far_from_the_others(reference, figure.name), *far_from_the_others(group, figure.name)]
    return Compared(group.name, figure, comparison, bound, source, within, far)


def energy_source(figure: Figure[Any], runs: Sequence[Run]) -> str | None:
    """Where the energy behind a figure comes from, in the words of the tables; None of a figure of no energy, or where none was measured."""
    if figure.name == SET_POWER or (figure.unit not in OF_ENERGY and figure.name not in ENERGIES):
        return None
    sources = {run["energy_source"] or UNKNOWN for run in runs if run[figure.name] is not None}
    return ", ".join(sorted(sources)) or None


def not_sensed(source: str | None) -> str:
    """What has to stand beside an energy that no sensor told; nothing beside another one."""
    return "" if source is None or set(source.split(", ")) <= SENSED else source


def _within_run(
    figure: Figure[Any], comparison: Comparison, runs: Sequence[Run], level: float
) -> tuple[float, float] | None:
    cvs = [run["batch_means_cv"] for run in runs]
    if figure.name != WITHIN_RUN or comparison.ratio is None or len(cvs) != 2 or None in cvs:
        return None
    return within_runs(comparison.ratio, (cvs[0], cvs[1]), parts=PARTS, level=level)


def far_from_the_others(group: Group, figure: str) -> list[str]:
    """Ids of runs whose figure does not look like one of their group."""
    known = [run for run in group.runs if run[figure] is not None]
    return [known[place]["experiment_id"] for place in outliers([run[figure] for run in known])]


def record(each: Compared) -> list[Any]:
    """A row of `COLUMNS`."""
    named = {
        "group": each.group,
        "figure": each.figure.name,
        "unit": each.figure.unit,
        "energy_bound": each.energy_bound,
        "energy_source": each.energy_source,
        "within_run_low": each.within_run and each.within_run[0],
        "within_run_high": each.within_run and each.within_run[1],
        "outliers": each.outliers,
    }
    return [named[column] if column in named else getattr(each.comparison, column) for column in COLUMNS]
