"""Results of LLenergyMeasure v0.8 (schema 2.0): figures without a log, kept as they are."""

import time
from collections.abc import Iterator
from datetime import datetime

import msgspec

from llem._version import __version__
from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Dated, Mapped
from llem.results.experiment import ExperimentResult
from llem.results.figures import EXPERIMENT_FIGURES
from llem.results.predecessor import read_predecessor
from llem_events.events import ExperimentCompleted, ExperimentStarted, ResultImported

OPTIONS: frozenset[str] = frozenset()


class KeptResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result that is read from its file whenever it is asked for."""

    result: ExperimentResult
    # its segment's clocks are the importing host's: none of its events happened elsewhere
    clocks: None = None

    @property
    def began(self) -> datetime:
        """When it was measured."""
        return self.result.start_time

    @property
    def mapping(self) -> Iterator[Mapped]:
        """Every figure that has a place in a result."""
        for figure in EXPERIMENT_FIGURES:
            if figure.value_of(self.result) is None:
                yield Mapped(figure.name, reason="not in the file")
            else:
                yield Mapped(figure.name, "the same figure of the file")

    @property
    def notes(self) -> list[str]:
        """What the file itself warns of stands in the result."""
        return []

    def events(self, kept: ResultImported, *, experiment_id: str) -> Iterator[Dated]:
        """Its start, the file and its end."""
        processes = len(self.result.process_results) or 1
        now_ns = time.monotonic_ns()
        yield now_ns, self._started(experiment_id, processes)
        yield now_ns, kept
        yield now_ns, ExperimentCompleted(processes_completed=processes, processes_failed=0)

    def _started(self, experiment_id: str, processes: int) -> ExperimentStarted:
        return ExperimentStarted(
            experiment_id=experiment_id,
            plan={},  # the predecessor's configuration is another language; it stays in the original
            measurement_config_hash=self.result.measurement_config_hash,
            expected_processes=processes,
            labels={**self.result.labels, "imported_id": self.result.experiment_id},
            llem_version=__version__,
        )


def recognises(document: Document) -> bool:
    """Whether it is a JSON object with a version of its schema, or of what every result has."""
    return "schema_version" in document.fields and "aiperf_version" not in document.fields


def recordings(document: Document, asked: Asked) -> Iterator[KeptResult]:
    """The one result of a file. Raises ExportError, which names the field that does not fit."""
    yield KeptResult(result=read_predecessor(document.content, what=document.what))
