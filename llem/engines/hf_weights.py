"""Whether a model's files hold its weights: what was left out, left over or cast becomes a doubt that names them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from huggingface_hub import try_to_load_from_cache

from llem.engines.sources import ModelSource

_NAMED = 3  # of many names, so that one line stays one line
_MAX_HEADER_BYTES = 2**28
# Types of tensors that stand for weights only together with scales, which nobody applies unless a quantisation is named.
_QUANTIZED_TYPES = ("I8", "U8", "I16", "U16", "I32", "U32", "F8_", "F4", "F6_")
_NO_WEIGHTS = ("bias", "mask", "position_ids")  # buffers of older models: causal masks, tables of positions


class _Tensor(msgspec.Struct, frozen=True):
    """What a header says of a tensor; the entry about the file itself says none of it."""

    dtype: str | None = None
    shape: list[int] = []


def loading_doubts(report: Mapping[str, Iterable[Any]]) -> list[str]:
    """From the report of from_pretrained: weights drawn at random, tensors that nothing uses, and other shapes."""
    mismatched = [
        entry if isinstance(entry, str) else entry[0] for entry in report.get("mismatched_keys", ())
    ]
    missing = set(report.get("missing_keys", ())) - set(mismatched)
    return [
        *_doubt(missing, "missing from its files and drawn at random"),
        *_doubt(report.get("unexpected_keys", ()), "in its files that the model does not use"),
        *_doubt(mismatched, "of another shape in its files, and drawn at random"),
    ]


def integer_doubts(source: ModelSource) -> list[str]:
    """Tensors of a type that was quantised, where neither the configuration nor the plan names a quantisation."""
    names = [
        f"{name} ({kind})"
        for path in _weight_files(source)
        for name, kind in _tensor_types(path)
        if kind.startswith(_QUANTIZED_TYPES) and not name.endswith(_NO_WEIGHTS)
    ]
    return _doubt(names, "quantised in its files, but no quantisation is named")


def _doubt(names: Iterable[str], what: str) -> list[str]:
    ordered = sorted(names)
    if not ordered:
        return []
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    tensors = "tensor" if len(ordered) == 1 else "tensors"
    return [f"{len(ordered)} {tensors} {what}: {', '.join(ordered[:_NAMED])}{more}"]


def _weight_files(source: ModelSource) -> list[Path]:
    """The safetensors files that a model is loaded from."""
    if source.kind == "path":
        return sorted(Path(source.location).glob("model*.safetensors"))
    config = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
    return sorted(Path(config).parent.glob("model*.safetensors")) if isinstance(config, str) else []


def _tensor_types(path: Path) -> Iterator[tuple[str, str]]:
    """Name and type of each tensor, from the header: eight bytes of its length, then JSON; none of a damaged file,
    which is told where it is loaded.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = msgspec.json.decode(file.read(min(length, _MAX_HEADER_BYTES)), type=dict[str, _Tensor])
    except (OSError, msgspec.DecodeError):
        return
    for name, tensor in header.items():
        if tensor.dtype is not None and len(tensor.shape) > 1:
            yield name, tensor.dtype
