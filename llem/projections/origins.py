"""What a result came from: segments, blocks, events and digests."""

import duckdb
import msgspec


class SegmentLineage(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one segment that a result includes; numbers count from 0 and include both ends."""

    file: str
    segment_id: str | None
    role: str | None
    process_index: int | None
    verdict: str
    blocks: tuple[int, int] | None  # first and last; None where nothing was read
    events: tuple[int, int] | None
    samples: int
    requests: int
    digest: str | None  # chain digest of the last block: pins every byte before it
    skipped_bytes: int


def lineage(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> list[SegmentLineage]:
    """Every segment that the experiment's results came from, in the order of their files."""
    rows = connection.execute(
        "SELECT file, segment_id, role, process_index, verdict, blocks, events, samples, requests, digest, skipped_bytes "
        "FROM segments WHERE experiment_id = ? ORDER BY file",
        [experiment_id],
    ).fetchall()
    found = []
    for (
        file,
        segment_id,
        role,
        process_index,
        verdict,
        blocks,
        events,
        samples,
        requests,
        digest,
        skipped,
    ) in rows:
        found.append(
            SegmentLineage(
                file=file,
                segment_id=segment_id,
                role=role,
                process_index=process_index,
                verdict=verdict,
                blocks=(0, blocks - 1) if blocks else None,
                events=(0, events - 1) if events else None,
                samples=samples,
                requests=requests,
                digest=digest,
                skipped_bytes=skipped,
            )
        )
    return found
