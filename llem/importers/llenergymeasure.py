"""Results of LLenergyMeasure, of processes, experiments and studies: figures without a log, kept as they are, with the samples beside them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import msgspec

from llem.importers import beside_result, configuration_runs
from llem.importers.asked import EPOCH, Asked
from llem.importers.beside_result import SampleFile
from llem.importers.document import Document
from llem.importers.recording import SAMPLES_OF_AN_EVENT, Dated, Mapped, Recording
from llem.results.experiment import ExperimentResult
from llem.results.figures import EXPERIMENT_FIGURES
from llem.results.predecessor import read_predecessor
from llem.units import NS_PER_S
from llem.versions import __version__
from llem_events import ClockPair, columns
from llem_events.events import ExperimentCompleted, ExperimentStarted, MeterStarted, ResultImported

OPTIONS: frozenset[str] = frozenset()
METER = "imported:llenergymeasure"
# What llem says of an experiment, of its verdict and of its place in a study of llem.
_NOT_OF_A_FILE = {
    "valid",
    "study_id",
    "cell",
    "cell_hash",
    "block",
    "position",
    "name",
    "meter",
    "interval_reason",
}
_TIMES = frozenset(("start_time", "end_time", "start", "end"))
_WITH_TIMES = frozenset(("process_results", "timestamps"))
_SERIES = ("experiments", "cycle_results")  # of a study; of the cycles before v0.7


class KeptResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result that is read from its file whenever it is asked for."""

    result: ExperimentResult
    original: bytes | None = None  # of a file with several, what belongs to this one; None: all
    samples: SampleFile | None = None
    labels: Mapping[str, str] = {}
    process_index: None = None  # what its processes did is not told event by event

    @property
    def clocks(self) -> ClockPair | None:
        """Those of its samples; without any, those of the importing host: none of its events happened elsewhere."""
        return None if self.samples is None else ClockPair(0, self._start_ns)

    @property
    def _start_ns(self) -> int:
        return (self.result.start_time - EPOCH) // timedelta(microseconds=1) * 1_000

    @property
    def began(self) -> datetime:
        """When it was measured."""
        return self.result.start_time

    @property
    def mapping(self) -> Iterator[Mapped]:
        """Every figure that has a place in a result: there are some 100."""
        told = {figure.name: figure.value_of(self.result) is not None for figure in EXPERIMENT_FIGURES}
        yield Mapped(
            _names(name for name, is_told in told.items() if is_told), "the same figures of the file"
        )
        missing = _names(name for name, is_told in told.items() if not is_told and name not in _NOT_OF_A_FILE)
        yield Mapped(missing, reason="not in the file")
        yield Mapped("valid", reason="an imported result is not judged")
        if self.labels:
            yield Mapped(f"labels: {', '.join(self.labels)}", "the study or the cycles that it is of")
        yield from _mapped_samples(self.result, self.samples)

    @property
    def notes(self) -> list[str]:
        """What the file itself warns of stands in the result."""
        return []

    def events(self, kept: ResultImported, *, experiment_id: str) -> Iterator[Dated]:
        """Its start, the file and its end."""
        processes = len(self.result.process_results) or 1
        now_ns = time.monotonic_ns() if self.samples is None else 0
        yield now_ns, self._started(experiment_id, processes)
        yield from self._samples()
        yield now_ns, kept if self.original is None else self._part(kept)
        yield now_ns, ExperimentCompleted(processes_completed=processes, processes_failed=0)

    def _samples(self) -> Iterator[Dated]:
        """The file of them before that of the result, which is the experiment's."""
        if self.samples is None:
            return
        yield 0, self.samples.kept
        devices = [gpu.metered for gpu in self.samples.gpus]
        yield 0, MeterStarted(meter=METER, process_index=0, sample_hz=1.0, devices=devices)
        for gpu in self.samples.gpus:
            for first in range(0, len(gpu.readings), SAMPLES_OF_AN_EVENT):
                piece = gpu.readings[first : first + SAMPLES_OF_AN_EVENT]
                packed = columns.pack(piece, meter=METER, device_uuid=gpu.metered.device.uuid)
                yield piece[0].at_ns, packed

    def _part(self, kept: ResultImported) -> ResultImported:
        return msgspec.structs.replace(kept, original=self.original, bytes_kept=False)

    def _started(self, experiment_id: str, processes: int) -> ExperimentStarted:
        return ExperimentStarted(
            experiment_id=experiment_id,
            plan={},  # the predecessor's configuration is another language; it stays in the original
            measurement_config_hash=self.result.measurement_config_hash,
            expected_processes=processes,
            labels={**self.result.labels, **self.labels, "imported_id": self.result.experiment_id},
            llem_version=__version__,
        )


def recognises(document: Document) -> bool:
    """Whether it is a JSON object with a version of its schema, one of llem's own experiments too, or several of LLenergyMeasure."""
    several = _several(document)
    ours = any(isinstance(fields, dict) and "weights" in fields for fields in several)
    are_results = all(map(_is_result, several or [document.json]))
    return not ours and (are_results or bool(configuration_runs.configuration_runs(document)))


def recordings(document: Document, asked: Asked) -> Iterator[KeptResult | Recording]:
    """The results of a file. Raises ExportError, which names the field that does not fit."""
    if configuration_runs.configuration_runs(document):
        yield from configuration_runs.recordings(document, asked)
        return
    several = _several(document)
    if not several:
        yield _alone(document, asked)
    for number, fields in enumerate(several, 1):
        original = msgspec.json.encode(_in_zone(fields, asked))
        result = read_predecessor(original, what=f"{document.what}: result {number}")
        cycle = {"cycle": str(number)} if "cycle_results" in document.fields else {}
        yield KeptResult(result=result, original=original, labels=cycle)


def _alone(document: Document, asked: Asked) -> KeptResult:
    """The result of a file, with what stands beside it."""
    result, original = read_predecessor(document.content, what=document.what), None
    fields = _in_zone(document.fields, asked)
    if document.path is None:
        return KeptResult(result=result)
    if (snapshot := beside_result.surroundings(document.path.parent, fields)) is not None:
        fields = {**fields, "environment_snapshot": snapshot}
    if fields != document.fields:
        original = msgspec.json.encode(fields)
        result = read_predecessor(original, what=f"{document.what} with its surroundings")
    return KeptResult(
        result=result,
        original=original,
        samples=_samples_beside(document.path, result),
        labels=beside_result.place_in_study(document.path),
    )


def _in_zone(fields: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """The same with the zone that was named in every time without one; the times of processes too."""
    if asked.zone is None:
        return fields
    zoned = {
        key: _zoned(value, asked.zone) if key in _TIMES else value
        for key, value in fields.items()
        if key not in _WITH_TIMES
    }
    for key in _WITH_TIMES & fields.keys():
        inner = fields[key]
        zoned[key] = (
            [_in_zone(each, asked) for each in inner] if isinstance(inner, list) else _in_zone(inner, asked)
        )
    return zoned


def _zoned(written: Any, zone: tzinfo) -> Any:
    """A time with its zone; anything else as it is, for who reads it to refuse."""
    try:
        moment = datetime.fromisoformat(written)
    except (TypeError, ValueError):
        return written
    return written if moment.tzinfo else moment.replace(tzinfo=zone).isoformat()


def _samples_beside(path: Path, result: ExperimentResult) -> SampleFile | None:
    lasted_ns = round(result.duration_sec * NS_PER_S)
    return beside_result.sample_file(path.parent, result.timeseries, lasted_ns=lasted_ns)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _mapped_samples(result: ExperimentResult, samples: SampleFile | None) -> Iterator[Mapped]:
    if samples is None:
        told = (
            "the file tells of none"
            if result.timeseries is None
            else f"no {result.timeseries} stands beside the file"
        )
        yield Mapped("samples", reason=told)
        return
    gpus: Sequence[beside_result.GpuSamples] = samples.gpus
    count = sum(len(gpu.readings) for gpu in gpus)
    yield Mapped("samples", f"{samples.path.name}: {count} of {len(gpus)} GPU{'s' * (len(gpus) != 1)}")
    for column in sorted({name for gpu in gpus for name in gpu.metered.missing}):
        yield Mapped(f"samples.{column}", reason=beside_result.MISSING)


def _several(document: Document) -> list[Any]:
    """Those of a list, of a study or of cycles; none of a file that is one result."""
    listed = next((document.fields[name] for name in _SERIES if name in document.fields), document.json)
    return listed if isinstance(listed, list) else []


def _is_result(fields: Any) -> bool:
    """Not a process or a segment of llem."""
    if not isinstance(fields, dict) or "aiperf_version" in fields:
        return False
    others = {"host", "segment_id", "study_design_hash"}  # the last names the manifest of a study
    versions = {"schema_version", "declared_config_hash"}
    return bool(versions & fields.keys()) and not others & fields.keys()
