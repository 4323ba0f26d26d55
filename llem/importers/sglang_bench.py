"""`python -m sglang.bench_serving --output-file`: a run on each line, without times."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llem.importers.asked import Asked
from llem.importers.document import Count, Document, Seconds
from llem.importers.recording import Mapped, Measurement, Recording, nanoseconds
from llem_events.events import WorkReported

OPTIONS = frozenset({"timezone", "start"})
_KEYS = {"backend", "duration", "completed", "total_output_tokens", "total_output_tokens_retokenized"}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a run."""

    backend: str
    duration: Seconds
    completed: Count
    failed: Count = 0
    total_input_tokens: Count
    total_output_tokens: Count
    tag: str | None = None
    server_info: Any = None

    @property
    def model(self) -> str | None:
        """What the server says of itself."""
        path = self.server_info.get("model_path") if isinstance(self.server_info, dict) else None
        return path if isinstance(path, str) else None


def recognises(document: Document) -> bool:
    """Whether every object has the keys of a result."""
    return bool(document.objects) and all(fields.keys() >= _KEYS for fields in document.objects)


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """A run for each line, one after the other from --start on. Raises LlemError."""
    began_ns = asked.start_ns()
    if began_ns is None:
        raise document.refuse("SGLang does not write when it ran", hint="say --start TIME")
    several = len(document.objects) > 1
    for fields in document.objects:
        result = document.convert(fields, Result)
        duration_ns = max(nanoseconds(result.duration), 1)
        yield _recording(result, began_ns, duration_ns, msgspec.json.encode(fields) if several else None)
        began_ns += duration_ns


def _recording(result: Result, began_ns: int, duration_ns: int, original: bytes | None) -> Recording:
    labels = {"client_backend": result.backend, **({"tag": result.tag} if result.tag else {})}
    return Recording(
        origin_ns=began_ns,
        measurements=[Measurement((0, duration_ns))],
        model_name=result.model,
        labels=labels,
        work=WorkReported(
            tokens=result.total_input_tokens + result.total_output_tokens,
            input_tokens=result.total_input_tokens,
            output_tokens=result.total_output_tokens,
            requests=result.completed + result.failed,
        ),
        notes=["when it began is what --start said; the runs of a file are placed one after the other"],
        mapping=[
            Mapped("start_time", "--start"),
            Mapped("duration_sec", "duration"),
            Mapped("total_input_tokens, total_output_tokens, total_requests", "the totals of the same names"),
            Mapped("requests, latencies", reason="when each request was sent is not in the file"),
            Mapped("total_energy_j, samples", reason="the file has no energy"),
        ],
        original=original,
    )
