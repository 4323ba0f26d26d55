"""JSON Schema of every event version, as published in events/schema.

Run `python -m llem_events.publish_schema [FOLDER]` after a change to the vocabulary. msgpack's binary strings, which JSON lacks,
appear as strings with contentEncoding base64.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from llem_events.format import SegmentHeader
from llem_events.upcast import KNOWN_VERSIONS

FOLDER = Path(__file__).parent.parent / "schema"


def documents() -> dict[str, str]:
    """File name -> its text: one schema per event version, and that of the segment header."""
    types: dict[str, type[msgspec.Struct]] = {
        f"{name}-{version}": event for (name, version), event in KNOWN_VERSIONS.items()
    }
    types["segment_header"] = SegmentHeader
    return {f"{name}.json": _document(name, struct) for name, struct in types.items()}


def _document(name: str, struct: type[msgspec.Struct]) -> str:
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}
    schema |= msgspec.json.schema(struct)
    for definition in schema.get("$defs", {}).values():
        _clean(definition)
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _clean(definition: dict[str, Any]) -> None:
    """Docstrings without their indentation, which Python 3.13 strips and 3.11 keeps, and null last, where msgspec 0.22 puts it."""
    if "description" in definition:
        definition["description"] = inspect.cleandoc(definition["description"])
    for field in definition.get("properties", {}).values():
        if "anyOf" in field:
            field["anyOf"].sort(key=lambda choice: choice == {"type": "null"})


def publish(folder: Path) -> None:
    """Write every document to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    publish(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
