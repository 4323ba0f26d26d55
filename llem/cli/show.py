"""llem show."""

import sys
from collections.abc import Sequence
from typing import Annotated, TextIO

import msgspec
import typer

from llem.cli import console
from llem.cli.options import JsonOption, RunArgument, StoreOption
from llem.cli.part import MethodologyOption, WindowOption, chosen_part
from llem.cli.result import write_result
from llem.cli.run_facts import RunFacts, run_facts
from llem.cli.table import write_table
from llem.cli.tables import tables_of
from llem.projections import SegmentLineage, lineage, results_for
from llem.results import ExperimentResult
from llem.store import LAST, Store


def show(
    run: RunArgument = LAST,
    methodology: MethodologyOption = None,
    window: WindowOption = None,
    events: Annotated[
        bool, typer.Option("--events", help="The segments, blocks and events it came from.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Use what can be read of a damaged log.")
    ] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show one experiment's result, or the events it came from."""
    part, seconds = chosen_part(methodology, window)
    place = Store.locate(store)
    experiment_id = place.resolve(run)
    with tables_of(place, salvage=salvage, only=[experiment_id]) as connection:
        if events:
            _write_lineage(lineage(connection, experiment_id), json=json)
        else:
            result = results_for(connection, experiment_id, methodology=part.value, window_s=seconds)
            write(sys.stdout, result, run_facts(connection, experiment_id), json=json)


def write(out: TextIO, result: ExperimentResult, facts: RunFacts, *, json: bool) -> None:
    """The result, as JSON or for people."""
    if json:
        console.write_line(out, msgspec.json.encode(result).decode())
    else:
        write_result(out, result, facts)
    out.flush()


def _write_lineage(segments: Sequence[SegmentLineage], *, json: bool) -> None:
    if json:
        console.say(msgspec.json.encode(segments).decode())
        return
    columns = ("file", "verdict", "blocks", "events", "samples", "requests", "digest of the last block")
    rows = [
        (
            segment.file,
            segment.verdict,
            _range(segment.blocks),
            _range(segment.events),
            segment.samples,
            segment.requests,
            segment.digest,
        )
        for segment in segments
    ]
    write_table(sys.stdout, columns, rows, instead="--json")


def _range(numbers: tuple[int, int] | None) -> str:
    return "none" if numbers is None else f"{numbers[0]} to {numbers[1]}"
