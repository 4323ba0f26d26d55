"""The same samples as a segment of our log and as one zstd Parquet file, written by the programs that users have."""

from pathlib import Path

import duckdb
import numpy as np

from benchmarks.h100_trace import chunks
from llem_events import SAMPLE_COLUMNS, SegmentHeader, SegmentWriter, columns, read_clocks
from tests import world

METER, DEVICE_UUID = "nvml", "GPU-4f3c2a10-8c57-4a1e-9b1a-0d6f5e7c8b9a"
BLOCK_SAMPLES = 100  # a second at 100 Hz


def segment_header() -> SegmentHeader:
    """The header of a sampler's segment."""
    clocks = read_clocks()
    return world.header_of("sampler", index=0, monotonic_ns=clocks.monotonic_ns, wall_ns=clocks.wall_ns)


def write_log(path: Path, samples: int) -> None:
    """One segment, a block for every BLOCK_SAMPLES, sealed."""
    writer = SegmentWriter(path, segment_header(), sync="close")
    for chunk in chunks(samples):
        rows = np.stack([chunk[name] for name in SAMPLE_COLUMNS], axis=1)
        for start in range(0, len(rows), BLOCK_SAMPLES):
            block = rows[start : start + BLOCK_SAMPLES]
            event = columns.encode(block, meter=METER, device_uuid=DEVICE_UUID)
            writer.append(event, at_ns=int(block[0, 0]))
            writer.flush()
    writer.seal()


def write_parquet(path: Path, samples: int, *, version: str = "V1") -> None:
    """The log's integer columns as DuckDB writes them by default, or with the encodings of Parquet version 2."""
    with duckdb.connect(str(path.with_suffix(".duckdb"))) as connection:
        names = ", ".join(f"{name} BIGINT" for name in SAMPLE_COLUMNS)
        connection.execute(f"CREATE TABLE samples ({names})")
        for chunk in chunks(samples):
            connection.register("chunk", chunk)
            connection.execute("INSERT INTO samples SELECT * FROM chunk")
        connection.execute(
            f"COPY samples TO '{path}' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION {version})"
        )
    path.with_suffix(".duckdb").unlink()
