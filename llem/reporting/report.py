"""All that a page shows, and which of its figures it is about."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from llem.comparing.compared import Compared
from llem.comparing.findings import Findings
from llem.reporting.charts import Curves, Trace
from llem.reporting.facts import Sensor, Site
from llem.results.figures import EXPERIMENT_FIGURES, Figure
from llem.results.roofline import RooflinePoint

FIGURES: dict[str, Figure[Any]] = {figure.name: figure for figure in EXPERIMENT_FIGURES}
# The first that every run has is what the report is about.
MAIN = ("energy_per_output_token_j", "total_energy_j", "duration_sec")


class Drawing(NamedTuple):
    """A chart, by the name that its file gets; `trace` is its place among those that can be looked at closer."""

    name: str
    svg: str
    trace: int | None = None


Part = str | Drawing


class Report(NamedTuple):
    """All that a page shows."""

    title: str
    findings: Findings
    traces: Sequence[Trace]  # of one run of each group, a device each
    distributions: Mapping[str, Mapping[str, Curves]]  # series -> group -> curves
    margin: float
    level: float
    again: Sequence[str]  # commands that make the page and its figures anew
    plan: str | None  # of a study, as it was written, or of the only run
    sensors: Sequence[Sensor] = ()  # that were calibrated
    site: Site | None = None  # where factors were given
    roofline: Mapping[str, RooflinePoint] = MappingProxyType({})  # of each run of which enough is known
    digests: Mapping[str, str] = MappingProxyType({})  # of the log of each run
    samples: Sequence[str] = ()  # of each trace, packed; empty where they are not embedded

    @property
    def main(self) -> str | None:
        """The figure that it is about: the first that is above 0 in every run."""
        runs = [run for group in self.findings.groups for run in group.runs]
        return next((name for name in MAIN if all((run[name] or 0) > 0 for run in runs)), None)

    @property
    def level_in_words(self) -> str:
        """Of all intervals."""
        return f"{100 * self.level:g} %"

    def found(self, group: str, name: str) -> Compared | None:
        """How a figure of a group compares with that of the reference."""
        return next(
            (each for each in self.findings.compared if (each.group, each.figure.name) == (group, name)), None
        )
