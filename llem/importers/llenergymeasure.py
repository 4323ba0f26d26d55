"""Results of LLenergyMeasure v0.4 to v0.8, of processes, experiments and studies: figures without a log, kept as they are."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

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
    original: bytes | None = None  # of a file with several, what belongs to this one; None: all
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
        yield now_ns, kept if self.original is None else self._part(kept)
        yield now_ns, ExperimentCompleted(processes_completed=processes, processes_failed=0)

    def _part(self, kept: ResultImported) -> ResultImported:
        return msgspec.structs.replace(kept, original=self.original, bytes_kept=False)

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
    """Whether it is a JSON object with a version of its schema, one of llem's own experiments too, or several of LLenergyMeasure."""
    several = _several(document)
    ours = any(isinstance(fields, dict) and "weights" in fields for fields in several)
    return not ours and all(map(_is_result, several or [document.json]))


def recordings(document: Document, asked: Asked) -> Iterator[KeptResult]:
    """The results of a file. Raises ExportError, which names the field that does not fit."""
    several = _several(document)
    if not several:
        yield KeptResult(result=read_predecessor(document.content, what=document.what))
    for number, fields in enumerate(several, 1):
        original = msgspec.json.encode(fields)
        result = read_predecessor(original, what=f"{document.what}: result {number}")
        yield KeptResult(result=result, original=original)


def _several(document: Document) -> list[Any]:
    """Those of a list or of a study; none of a file that is one result."""
    listed = document.fields.get("experiments", document.json)
    return listed if isinstance(listed, list) else []


def _is_result(fields: Any) -> bool:
    """Not a process or a segment of llem."""
    if not isinstance(fields, dict) or "aiperf_version" in fields:
        return False
    return "schema_version" in fields and not {"host", "segment_id"} & fields.keys()
