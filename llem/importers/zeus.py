"""The log file of a ZeusMonitor: windows with the energy of each GPU; an experiment for each name of a window."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from llem.importers.asked import Asked
from llem.importers.document import Document, Joules, Seconds, UnixSeconds
from llem.importers.recording import Mapped, Recording, Sum, measurement, metered, nanoseconds

OPTIONS: frozenset[str] = frozenset()
_HEADER = ["start_time", "window_name", "elapsed_time"]
_GPU = re.compile(r"gpu(\d{1,4})_energy")
_ZERO = "0 J: the window was shorter than the counter's tick"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A line."""

    start: UnixSeconds
    elapsed: Seconds
    energies_j: list[Joules]

    @property
    def span(self) -> tuple[int, int]:
        """Nanoseconds since 1970."""
        start_ns = nanoseconds(self.start)
        return start_ns, start_ns + nanoseconds(self.elapsed)


def recognises(document: Document) -> bool:
    """Whether its first line is that of a ZeusMonitor."""
    return document.header[:3] == _HEADER


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """A run for each name, whose windows are its measurement. Raises ExportError."""
    header, *rows = document.rows
    gpus = [_gpu(document, name) for name in header[3:]]
    named: dict[str, list[Window]] = {}
    for number, cells in enumerate(rows, 2):
        if len(cells) != len(header):
            raise document.refuse(f"line {number}", found=f"{len(cells)} columns", expected=len(header))
        named.setdefault(cells[1], []).append(_window(document, cells))
    if not named:
        raise document.refuse("it has no windows", hint="Zeus writes one when it ends")
    for name, windows in named.items():
        windows.sort(key=lambda window: window.start)
        if any(later.span[0] < before.span[1] for before, later in pairwise(windows)):
            raise document.refuse(f"two windows {name!r} overlap")
        original = None if len(named) == 1 else _lines(header, rows, name)
        yield _recording(name, windows, gpus, original)


def _lines(header: list[str], rows: Sequence[list[str]], name: str) -> bytes:
    lines = [header, *(cells for cells in rows if cells[1] == name)]
    return "".join(f"{','.join(cells)}\n" for cells in lines).encode()


def _gpu(document: Document, name: str) -> str:
    matched = _GPU.fullmatch(name)
    if matched is None:
        raise document.refuse("a column", found=repr(name[:40]), expected="gpuN_energy")
    return f"GPU {matched[1]}"


def _window(document: Document, cells: list[str]) -> Window:
    try:
        fields = {
            "start": float(cells[0]),
            "elapsed": float(cells[2]),
            "energies_j": [*map(float, cells[3:])],
        }
    except ValueError as error:
        raise document.refuse("a window cannot be read", found=str(error)) from None
    return document.convert(fields, Window)


def _mapped_energy(windows: Sequence[Window]) -> Mapped:
    if any(energy_j for window in windows for energy_j in window.energies_j):
        return Mapped("total_energy_j", "gpuN_energy; 0 is not measured")
    return Mapped("total_energy_j", reason=_ZERO)


def _recording(
    name: str, windows: Sequence[Window], gpus: Sequence[str], original: bytes | None
) -> Recording:
    origin_ns = windows[0].span[0]
    sums = [
        [
            Sum(uuid, "gpu", energy_j or None, None if energy_j else _ZERO)
            for uuid, energy_j in zip(gpus, window.energies_j, strict=True)
        ]
        for window in windows
    ]
    spans = [(window.span[0] - origin_ns, window.span[1] - origin_ns) for window in windows]
    return Recording(
        origin_ns=origin_ns,
        measurements=[measurement(span, energies) for span, energies in zip(spans, sums, strict=True)],
        devices=metered(sums[0]),
        labels={"window_name": name},
        notes=[
            "of GPUs before Volta Zeus integrates power where others have a counter: the file does not tell which"
        ],
        mapping=[
            Mapped("windows", "start_time, elapsed_time"),
            _mapped_energy(windows),
            Mapped("energy_cpu_j, energy_dram_j", reason="Zeus does not write them into its log file"),
            Mapped("samples, requests, tokens", reason="the file has sums only"),
        ],
        original=original,
    )
