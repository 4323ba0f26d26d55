"""What LLenergyMeasure writes beside a result: samples of its GPUs, the surroundings, and the study that it is of."""

import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from llem.errors import ExportError
from llem.importers.document import Fields
from llem.sql import literal
from llem.units import BYTES_PER_MB, MW_PER_W, NS_PER_S
from llem_events import Reading
from llem_events.events import Device, MeteredDevice, ResultImported

TABLE = "timeseries.parquet"
MANIFEST = "manifest.json"
SURROUNDINGS = ("environment.json", "system.json")  # as later versions call it
FORMAT = "llenergymeasure-samples"
MOST_BYTES = ResultImported.MAX_BYTES - 2**16
MOST_READ_BYTES = 64 * 2**20
_COLUMNS = ("timestamp_s", "gpu_index", "power_w", "temperature_c", "memory_used_mb", "memory_total_mb")
_ASKED = (*_COLUMNS, "sm_utilisation_pct", "throttle_reasons")
_MOST_GPUS = 256
MISSING = "LLenergyMeasure does not keep it"


class GpuSamples(msgspec.Struct, frozen=True):
    """Samples of a GPU, in nanoseconds from the result's start."""

    metered: MeteredDevice
    readings: Sequence[Reading]


class SampleFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of samples, which is kept where an event can hold it."""

    path: Path
    sha256: str
    content: bytes
    gpus: Sequence[GpuSamples]

    @property
    def kept(self) -> ResultImported:
        """Its bytes, or its digest alone."""
        fits = len(self.content) <= MOST_BYTES
        return ResultImported(
            format=FORMAT,
            file_name=self.path.name,
            file_sha256=self.sha256,
            original=self.content if fits else b"",
            bytes_kept=fits,
        )


def sample_file(folder: Path, named: str | None, *, lasted_ns: int) -> SampleFile | None:
    """What a result names as its samples; None where it names none, or the file is gone. Raises ExportError."""
    path = folder / Path(named or TABLE).name
    if named is None or not _is_file(path):
        return None
    content = _content(path)
    rows = _json_rows(path, content) if path.suffix == ".json" else _parquet_rows(path, content)
    gpus = [_gpu(path, index, of_gpu, lasted_ns) for index, of_gpu in _by_gpu(path, rows).items()]
    return SampleFile(path=path, sha256=hashlib.sha256(content).hexdigest(), content=content, gpus=gpus)


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_READ_BYTES + 1)
    except OSError as error:
        raise ExportError(f"{path} cannot be read", found=error.strerror) from error
    if len(content) > MOST_READ_BYTES:
        raise ExportError(f"{path} is too large", expected=f"at most {MOST_READ_BYTES} bytes")
    return content


def _parquet_rows(path: Path, content: bytes) -> Iterator[Fields]:
    """Of a second each: its mean of what was read ten times. Raises ExportError."""
    # a path may look like a pattern to DuckDB
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy, duckdb.connect() as connection:
        copy.write(content)
        copy.flush()
        try:
            read = connection.execute(f"SELECT {', '.join(_ASKED)} FROM read_parquet({literal(copy.name)})")
            while rows := read.fetchmany(2**12):
                yield from (dict(zip(_ASKED, row, strict=True)) for row in rows)
        except duckdb.Error as error:
            raise ExportError(f"{path} cannot be read", found=str(error).splitlines()[0][:200]) from None


def _json_rows(path: Path, content: bytes) -> Iterator[Fields]:
    """Of v0.7's time to come: every reading of the one GPU of a process. Raises ExportError."""
    try:
        document = json.loads(content)
        for sample in document["samples"]:
            yield {
                "timestamp_s": sample["t"],
                "gpu_index": document["process_index"],
                "power_w": sample.get("power_w"),
                "temperature_c": sample.get("temp_c"),
                "memory_used_mb": sample.get("mem_mb"),
                "sm_utilisation_pct": sample.get("sm_pct"),
            }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{path} cannot be read", found=str(error)[:200]) from None


def _by_gpu(path: Path, rows: Iterator[Fields]) -> dict[int, list[Fields]]:
    of_gpus: dict[int, list[Fields]] = defaultdict(list)
    for row in rows:
        of_gpus[_whole(path, row, "gpu_index") or 0].append(row)
    if len(of_gpus) > _MOST_GPUS:
        raise ExportError(f"{path}: GPUs", found=len(of_gpus), expected=f"at most {_MOST_GPUS}")
    return of_gpus


def _gpu(path: Path, index: int, rows: Sequence[Fields], lasted_ns: int) -> GpuSamples:
    """Averages of a second stand at its end, the last one's at that of the run."""
    step_ns = NS_PER_S if path.suffix == ".parquet" else 0
    readings = [_reading(path, row, min(_at_ns(path, row) + step_ns, lasted_ns)) for row in rows]
    readings.sort(key=lambda reading: reading.at_ns)
    empty = {
        name: MISSING
        for name in Reading._fields[1:]
        if all(getattr(reading, name) is None for reading in readings)
    }
    device = Device(
        host="unknown",
        uuid=f"GPU {index}",
        index=index,
        name="unknown",
        kind="gpu",
        memory_bytes=_whole(path, rows[0], "memory_total_mb", BYTES_PER_MB),
    )
    metered = MeteredDevice(
        device=device,
        energy_source=None,
        power_kind="average",
        power_window_ns=NS_PER_S,
        missing=empty,
    )
    return GpuSamples(metered, readings)


def _at_ns(path: Path, row: Fields) -> int:
    return _whole(path, row, "timestamp_s", NS_PER_S) or 0


def _reading(path: Path, row: Fields, at_ns: int) -> Reading:
    return Reading(
        at_ns,
        power_mw=_whole(path, row, "power_w", MW_PER_W),
        temperature_c=_whole(path, row, "temperature_c"),
        gpu_utilisation_pct=_whole(path, row, "sm_utilisation_pct"),
        memory_used_bytes=_whole(path, row, "memory_used_mb", BYTES_PER_MB),
        throttle_reasons=_whole(path, row, "throttle_reasons"),
    )


def _whole(path: Path, row: Fields, name: str, scale: int = 1) -> int | None:
    number = row.get(name)
    if number is None:
        return None
    if not isinstance(number, int | float) or not 0 <= number * scale < 2**53:
        raise ExportError(f"{path}: {name}", found=repr(number)[:40], expected="a number from 0 on")
    return round(number * scale)


def surroundings(folder: Path, fields: Fields) -> Fields | None:
    """Since they are no part of a result; None where the file is another's or there is none."""
    beside = next(filter(None, (_json_object(folder / name) for name in SURROUNDINGS)), {})
    hashes = {
        beside.get(name, fields.get(name)) for name in ("measurement_config_hash", "declared_config_hash")
    }
    own = {fields.get(name) for name in ("measurement_config_hash", "declared_config_hash")}
    if not beside or "environment_snapshot" in fields or hashes != own:
        return None
    names = ("hardware", "python_version", "tool_version", "cuda_version", "cuda_version_source")
    told = {name: beside[name] for name in names if beside.get(name) is not None}
    hardware = told.get("hardware")
    if isinstance(hardware, dict) and isinstance(hardware.get("cuda"), dict):
        cuda = {"version": told.get("cuda_version"), **hardware["cuda"]}  # where 0.7 of PyPI tells it
        told["hardware"] = {**hardware, "cuda": cuda}
    return told


def place_in_study(path: Path) -> dict[str, str]:
    """Labels of a result whose study's manifest stands beside it or above: which study, configuration, cycle and place in the order of running."""
    for folder in (path.parent, path.parent.parent):
        manifest = _json_object(folder / MANIFEST)
        for position, entry in enumerate(_in_order(manifest), 1):
            if _named(folder, entry) == os.path.realpath(path):
                return {
                    "study": str(manifest.get("study_name")),
                    "study_design_hash": str(manifest.get("study_design_hash")),
                    "configuration": str(entry.get("config_summary")),
                    "cycle": str(entry.get("cycle")),
                    "position": str(position),
                }
    return {}


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study of LLenergyMeasure."""
    return "study_design_hash" in _json_object(folder / MANIFEST)


def results_in(folder: Path) -> list[Path]:
    """The results of a folder of LLenergyMeasure: those that a study's manifest names, in the order of running, else those that lie there."""
    named = (Path(_named(folder, entry)) for entry in _in_order(_json_object(folder / MANIFEST)))
    root = os.path.realpath(folder)
    inside = [path for path in named if path.is_relative_to(root) and _is_file(path)]
    if inside:
        return inside
    patterns = (
        "result.json",
        "*/result.json",
        "aggregated/*.json",
        "raw/*/process_*[0-9].json",
        "process_*[0-9].json",
    )
    found = (sorted(folder.glob(pattern)) for pattern in patterns)
    return next((paths for paths in found if paths), [])


def _named(folder: Path, entry: Fields) -> str:
    """Where the result of an entry lies; nowhere where it names what no file can be called."""
    try:
        return os.path.realpath(folder / str(entry["result_file"]))
    except ValueError:
        return ""


def _is_file(path: Path) -> bool:
    """Of a name that may be too long for one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _in_order(manifest: Mapping[str, Any]) -> list[Fields]:
    """Entries of runs that have a result."""
    entries = manifest.get("experiments")
    told = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return sorted(
        (entry for entry in told if entry.get("result_file")), key=lambda entry: str(entry.get("started_at"))
    )


def _json_object(path: Path) -> Fields:
    """None of its fields where it is not there or cannot be read."""
    try:
        if not _is_file(path) or path.stat().st_size > MOST_BYTES:
            return {}
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
