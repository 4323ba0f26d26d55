"""CodeCarbon's emissions.csv: a run for each run_id, its energies without the PUE that they contain."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from llem.errors import in_words
from llem.importers.asked import Asked
from llem.importers.document import Document, Fields
from llem.importers.recording import Mapped, Recording, Sum, measurement, metered, nanoseconds
from llem.units import J_PER_KWH
from llem_events.events import OtherMeter

OPTIONS = frozenset({"timezone"})
_KEYS = {"timestamp", "run_id", "duration", "emissions", "energy_consumed"}
_ZERO = "CodeCarbon writes 0 where it measured nothing"
_KilowattHours = Annotated[float, Meta(ge=0, le=1e9)]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a line."""

    timestamp: str  # when it was written, local
    run_id: str
    project_name: str = ""
    duration: Annotated[float, Meta(gt=0, le=1e9)]
    cpu_energy: _KilowattHours = 0.0
    gpu_energy: _KilowattHours = 0.0
    ram_energy: _KilowattHours = 0.0
    pue: Annotated[float, Meta(ge=1, le=100)] | None = None
    tracking_mode: str = ""
    gpu_model: str = ""
    cpu_model: str = ""
    codecarbon_version: str = ""


def recognises(document: Document) -> bool:
    """Whether its first line has the columns of CodeCarbon."""
    return {*document.header} >= _KEYS


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """A run for each run_id, from its last line. Raises ExportError."""
    last: dict[str, tuple[list[str], Fields]] = {}
    header: list[str] = []
    for number, cells in enumerate(document.rows, 1):
        if cells[0] == "timestamp":
            header = cells
        elif len(cells) != len(header):
            raise document.refuse(f"line {number}", found=f"{len(cells)} columns", expected=len(header))
        else:
            # an empty cell is as good as none
            fields = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            last[fields.get("run_id", "")] = (header, fields)
    for names, fields in last.values():
        original = None if len(last) == 1 else _lines(names, fields)
        yield _recording(document, _row(document, fields), asked, original)


def _lines(names: list[str], fields: Fields) -> bytes:
    cells = (fields.get(name, "") for name in names)
    return f"{','.join(names)}\n{','.join(cells)}\n".encode()


def _row(document: Document, fields: Fields) -> Row:
    try:
        return msgspec.convert(fields, Row, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise document.refuse("a field does not fit", found=in_words(str(error))) from None


def _recording(document: Document, row: Row, asked: Asked, original: bytes | None) -> Recording:
    duration_ns = nanoseconds(row.duration)
    ended_ns = _ended_ns(document, row, asked)
    pue = row.pue or 1.0
    gpus, others = _gpus(row, pue), _others(row, pue)
    # what is estimated is no part of a total that is measured
    first, beside = (gpus, others) if gpus else (others, [])
    return Recording(
        origin_ns=ended_ns - duration_ns,
        measurements=[measurement((0, duration_ns), [*first, *beside])],
        devices=metered(first),
        beside=[OtherMeter(meter="imported:codecarbon", devices=metered(beside))] if beside else [],
        version=row.codecarbon_version or None,
        labels={"project_name": row.project_name, "run_id": row.run_id, "tracking_mode": row.tracking_mode},
        notes=[asked.note_of_zone(), *_notes(row)],
        mapping=[*_mapping(row, gpus=bool(gpus))],
        original=original,
    )


def _ended_ns(document: Document, row: Row, asked: Asked) -> int:
    try:
        return asked.unix_ns(datetime.fromisoformat(row.timestamp))
    except (ValueError, OverflowError):
        raise document.refuse(
            "timestamp", found=repr(row.timestamp), expected="2026-11-26T10:00:00"
        ) from None


def _gpus(row: Row, pue: float) -> list[Sum]:
    """All as one; none where there is none."""
    if not row.gpu_model and not row.gpu_energy:
        return []
    return [_sum("GPUs", "gpu", row.gpu_energy / pue, name=row.gpu_model or "unknown")]


def _others(row: Row, pue: float) -> list[Sum]:
    """Whether a CPU was read or its thermal design power taken, the file does not tell; memory is always a guess."""
    return [
        _sum("CPU", "cpu_package", row.cpu_energy / pue, name=row.cpu_model or "unknown")._replace(
            source="estimated"
        ),
        _sum("RAM", "dram", row.ram_energy / pue)._replace(source="estimated"),
    ]


def _sum(uuid: str, kind: str, energy_kwh: float, *, name: str = "unknown") -> Sum:
    energy_j = energy_kwh * J_PER_KWH or None
    return Sum(uuid, kind, energy_j, None if energy_j else _ZERO, name)


def _notes(row: Row) -> Iterator[str]:
    if row.pue is None:
        yield "the file names no PUE: were one set, its energies would contain it"
    elif row.pue != 1:
        yield f"its energies were divided by the PUE of {row.pue:g} that they contain"
    yield "whether CodeCarbon read the CPU or estimated it is not in the file: CPU and memory are taken for estimates"


def _mapping(row: Row, *, gpus: bool) -> Iterator[Mapped]:
    yield Mapped("start_time, duration_sec", "timestamp, which is that of its end, and duration")
    for ours, theirs, energy in (
        ("energy_gpu_j", "gpu_energy", row.gpu_energy),
        ("energy_cpu_j", "cpu_energy", row.cpu_energy),
        ("energy_dram_j", "ram_energy", row.ram_energy),
    ):
        if energy:
            yield Mapped(ours, f"{theirs} in kWh, without PUE")
        else:
            no_gpu = theirs == "gpu_energy" and not gpus
            yield Mapped(ours, reason="the file names no GPU" if no_gpu else f"{theirs} is 0: {_ZERO}")
    yield Mapped("total_energy_j", "the GPUs alone" if gpus else "CPU and memory, estimated")
    yield Mapped("carbon", reason="emissions rest on a factor that stays in the file")
    yield Mapped("samples, requests, tokens", reason="the file has sums only")
