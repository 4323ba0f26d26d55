"""AIPerf's profile_export.jsonl, a request on each line; or the totals of profile_export_aiperf.json."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from llem.importers.asked import Asked
from llem.importers.document import Count, Document, UnixNs
from llem.importers.recording import Mapped, Measurement, Recording, request
from llem.units import MS_PER_S, NS_PER_MS
from llem_events.events import Request, WorkReported

OPTIONS = frozenset({"timezone"})
_NO_ENERGY = Mapped("total_energy_j, samples", reason="the file has no energy")
MEASURED = "profiling"


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """When a request was what."""

    request_start_ns: UnixNs
    request_ack_ns: UnixNs | None = None
    request_end_ns: UnixNs
    benchmark_phase: str = MEASURED
    was_cancelled: bool = False


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request failed."""

    code: Count | None = None
    type: str | None = None
    message: str = "failed"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A line."""

    metadata: Metadata
    metrics: dict[str, Any] = {}
    error: Failure | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of profile_export_aiperf.json."""

    aiperf_version: str
    start_time: datetime
    end_time: datetime
    input_config: Any = None
    request_count: dict[str, Any] | None = None
    error_request_count: dict[str, Any] | None = None
    total_isl: dict[str, Any] | None = None
    total_osl: dict[str, Any] | None = None


def recognises(document: Document) -> bool:
    """Whether its lines tell of requests, or it is the summary."""
    return "aiperf_version" in document.fields or _has_requests(document) or _is_table(document)


def _is_table(document: Document) -> bool:
    return document.header[:2] == ["Metric", "avg"]


def _has_requests(document: Document) -> bool:
    first = next(iter(document.objects), {}).get("metadata")
    return isinstance(first, dict) and "request_start_ns" in first


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """The one run of a file. Raises ExportError."""
    if _is_table(document):
        raise document.refuse(
            "its table does not tell when it was", hint="import profile_export.jsonl of the same run"
        )
    yield _detailed(document) if _has_requests(document) else _totals(document, asked)


class Requests:
    """Those of the measurement, read from the file whenever they are asked for: there may be millions. Raises ExportError."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.left_out = 0  # of other phases
        self.origin_ns, self.closed_ns = 2**62, 0
        for measured in self._since(0):
            self.origin_ns = min(self.origin_ns, measured.start_ns)
            self.closed_ns = max(self.closed_ns, measured.end_ns)

    def __iter__(self) -> Iterator[Request]:
        return self._since(self.origin_ns)

    def _since(self, origin_ns: int) -> Iterator[Request]:
        number = self.left_out = 0
        for fields in self._document.each_object():
            record = self._document.convert(fields, Record)
            if record.metadata.benchmark_phase != MEASURED:
                self.left_out += 1
                continue
            yield _request(self._document, number, record, origin_ns)
            number += 1


def _detailed(document: Document) -> Recording:
    requests = Requests(document)
    if not requests.closed_ns:
        raise document.refuse("it has no requests", hint="did the run fail?")
    return Recording(
        origin_ns=requests.origin_ns,
        measurements=[Measurement((0, requests.closed_ns - requests.origin_ns))],
        requests=requests,
        notes=[f"{requests.left_out} requests of other phases were left out"] if requests.left_out else [],
        mapping=[
            Mapped("requests", "request_start_ns, request_end_ns, time_to_first_token, inter_chunk_latency"),
            Mapped("requests.arrival_ns", "request_start_ns: when one was due is not in the file"),
            Mapped("model_name", reason="not in the lines of requests"),
            _NO_ENERGY,
        ],
    )


def _request(document: Document, number: int, record: Record, origin_ns: int) -> Request:
    times, failed = record.metadata, record.error
    start_ns = times.request_start_ns - origin_ns
    ttft_ms = _figure(document, record, "time_to_first_token")
    error = None if failed is None else f"{failed.code or ''} {failed.type or ''}: {failed.message}".strip()
    if times.was_cancelled:
        error = error or "cancelled"
    gaps_ms = _gaps_ms(document, record)
    return request(
        number,
        arrival_ns=start_ns,
        start_ns=start_ns,
        first_ns=None if ttft_ms is None else start_ns + round(ttft_ms * NS_PER_MS),
        end_ns=times.request_end_ns - origin_ns,
        input_tokens=round(_figure(document, record, "input_sequence_length") or 0),
        output_tokens=round(_figure(document, record, "output_sequence_length") or 0),
        gaps_sec=None if gaps_ms is None else [gap_ms / MS_PER_S for gap_ms in gaps_ms],
        headers_ns=None if times.request_ack_ns is None else times.request_ack_ns - origin_ns,
        error=error,
        status=None if failed is None else failed.code,
    )


Milliseconds = Count | float


def _figure(document: Document, record: Record, name: str) -> float | None:
    figure = record.metrics.get(name)
    number = figure.get("value") if isinstance(figure, dict) else None
    if number is None:
        return None
    if not isinstance(number, int | float) or not 0 <= number <= 2**31 - 1:
        raise document.refuse(f"metric {name}", found=repr(number)[:40], expected="a number from 0 on")
    return float(number)


def _gaps_ms(document: Document, record: Record) -> Sequence[float] | None:
    figure = record.metrics.get("inter_chunk_latency")
    gaps = figure.get("value") if isinstance(figure, dict) else None
    return None if gaps is None else document.convert(gaps, list[float]) if _are_times(gaps) else None


def _are_times(gaps: Any) -> bool:
    return isinstance(gaps, list) and all(isinstance(gap, int | float) and 0 <= gap <= 2**31 for gap in gaps)


def _totals(document: Document, asked: Asked) -> Recording:
    summary = document.convert(document.fields, Summary)
    began_ns, ended_ns = asked.unix_ns(summary.start_time), asked.unix_ns(summary.end_time)
    requests, failed = _total(summary.request_count), _total(summary.error_request_count)
    if not requests:
        raise document.refuse("it has no request that ended well", hint="did the run fail?")
    if ended_ns <= began_ns:
        raise document.refuse("end_time", found=summary.end_time, expected="a time after start_time")
    inputs, outputs = _total(summary.total_isl), _total(summary.total_osl)
    return Recording(
        origin_ns=began_ns,
        measurements=[Measurement((0, ended_ns - began_ns))],
        version=summary.aiperf_version,
        model_name=_model(summary.input_config),
        work=WorkReported(
            tokens=None if inputs is None or outputs is None else inputs + outputs,
            input_tokens=inputs,
            output_tokens=outputs,
            requests=requests + (failed or 0),
        ),
        notes=[asked.note_of_zone(), "profile_export.jsonl of the same run has its requests"],
        mapping=[
            Mapped("total_input_tokens, total_output_tokens", "total_isl, total_osl"),
            Mapped("requests", reason="the summary has none; profile_export.jsonl of the same run has"),
            _NO_ENERGY,
        ],
    )


def _total(figure: dict[str, Any] | None) -> int | None:
    number = (figure or {}).get("avg")
    return round(number) if isinstance(number, int | float) and 0 <= number < 2**53 else None


def _model(config: Any) -> str | None:
    try:
        name = config["models"]["items"][0]["name"]
    except (KeyError, IndexError, TypeError):
        return None
    return name if isinstance(name, str) else None
