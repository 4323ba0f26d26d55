"""Sealed Parquet at an address, for llem query: what a statement needs of it, here for as long as it is asked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llem.cli import console
from llem.cli.progress import WorkLine
from llem.query.process import Limits, Parameter
from llem.query.pruning import scanned
from llem.seal.brought import brought, limit_bytes, sealed_at, wanted
from llem.store import Store

NAMED = 3  # of experiments


@contextmanager
def brought_from(
    address: str,
    sql: str,
    *,
    store: Store,
    parameters: Mapping[str, Parameter],
    factors: Path | None,
    limits: Limits,
    cache_limit: str | None,
    line: WorkLine,
) -> Iterator[Path]:
    """A folder of this machine with the files that the statement needs. Raises QueryError, StoreError."""
    most_bytes = limit_bytes(cache_limit)
    remote, experiment_ids = sealed_at(address)
    asked = wanted(
        remote,
        experiment_ids,
        scanned(sql, store=store, parameters=parameters, factors=factors, limits=limits),
    )
    if asked.in_part:
        named = ", ".join(asked.in_part[:NAMED])
        count = console.counted(len(asked.in_part), "experiment")
        line.note(f"llem: sealed only in part: {count}, such as {named}; run `llem seal` again")
    with brought(remote, asked, limit_bytes=most_bytes, notify=line.note, on_progress=line.update) as folder:
        yield folder
