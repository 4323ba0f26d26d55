"""What the description of the Trace Event format asks of a file, checked without our writer."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

TraceEvent = dict[str, Any]
REQUIRED = {
    "X": {"name", "ph", "ts", "dur", "pid", "tid"},
    "C": {"name", "ph", "ts", "pid", "args"},
    "i": {"name", "ph", "ts", "pid", "tid", "s"},
    "M": {"name", "ph", "pid", "args"},
}
METADATA = {"process_name": "name", "thread_name": "name", "process_sort_index": "sort_index"}


def valid_events(path: Path) -> list[TraceEvent]:
    """The events of a file that keeps to the description."""
    trace = json.loads(path.read_text())
    events: list[TraceEvent] = trace["traceEvents"]
    for event in events:
        _check_event(event)
    _check_names(events)
    _check_nesting(events)
    return events


def counters(events: list[TraceEvent], pid: int, name: str) -> list[tuple[int, float]]:
    """Times and values of a counter of a process."""
    return [
        (event["ts"], value)
        for event in events
        if event["ph"] == "C" and event["pid"] == pid and event["name"] == name
        for value in event["args"].values()
    ]


def names(events: list[TraceEvent], kind: str, of: str = "pid") -> dict[int, str]:
    """Number of a process or thread -> its name."""
    return {event[of]: event["args"]["name"] for event in events if event["name"] == kind}


def slices(events: list[TraceEvent], name: str) -> list[TraceEvent]:
    """Those whose name begins so."""
    return [event for event in events if event["ph"] == "X" and event["name"].startswith(name)]


def _check_event(event: TraceEvent) -> None:
    assert set(event) >= REQUIRED[event["ph"]], event
    if event["ph"] == "M":
        assert METADATA[event["name"]] in event["args"], event
    else:
        assert isinstance(event["ts"], int) and event["ts"] >= 0, event
    if event["ph"] == "X":
        assert isinstance(event["dur"], int) and event["dur"] >= 0, event
    if event["ph"] == "C":
        assert event["args"] and all(isinstance(value, int | float) for value in event["args"].values()), (
            event
        )
    if event["ph"] == "i":
        assert event["s"] in {"g", "p", "t"}, event


def _check_names(events: list[TraceEvent]) -> None:
    processes, threads = names(events, "process_name"), names(events, "thread_name", "tid")
    assert {event["pid"] for event in events} <= set(processes)
    assert {event["tid"] for event in events if event["ph"] in "Xi"} <= set(threads)
    owners = {(event["tid"], event["pid"]) for event in events if event["ph"] in "Xi"}
    assert len(owners) == len({tid for tid, _ in owners})


def _check_nesting(events: list[TraceEvent]) -> None:
    """On one thread a slice begins after the one before has ended, or ends within it."""
    threads = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["tid"]].append(event)
    for found in threads.values():
        ends: list[int] = []
        for event in sorted(found, key=lambda event: (event["ts"], -event["dur"])):
            while ends and ends[-1] <= event["ts"]:
                ends.pop()
            assert not ends or event["ts"] + event["dur"] <= ends[-1], event
            ends.append(event["ts"] + event["dur"])
