"""Bytes per sample: a segment in one-second blocks, each with its digest, against one zstd Parquet file of the same rows.

The peer is what DuckDB writes by default. For comparison, Parquet version 2 (whose encodings few programs write by default)
and the parts of ours are printed too. A ratio under 1 means that the log is smaller.

    python -m benchmarks.size [--samples 1000000]
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.sample_files import BLOCK_SAMPLES, write_log, write_parquet
from llem_events import SegmentReader
from llem_events.format import BLOCK_HEADER_BYTES


def parts(path: Path, samples: int) -> str:
    """What a sample's bytes are spent on."""
    with SegmentReader(path) as reader:
        blocks = list(reader.blocks())
        compressed = sum(block.header.compressed_length for block in blocks) / samples
        raw = sum(block.header.raw_length for block in blocks) / samples
    header = BLOCK_HEADER_BYTES * len(blocks) / samples
    return f"block headers {header:.2f}, zstd frames {compressed:.2f} (from {raw:.2f}) bytes/sample"


def main() -> None:
    """Write the files, print their sizes; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name:
        log, parquet, second = (
            Path(name, file) for file in ("log.events.zst", "samples.parquet", "v2.parquet")
        )
        write_log(log, samples)
        write_parquet(parquet, samples)
        write_parquet(second, samples, version="V2")
        ours, peer, other = (path.stat().st_size / samples for path in (log, parquet, second))
        print(f"log {ours:.3f}, Parquet {peer:.3f}, Parquet version 2 {other:.3f} bytes/sample")
        print(f"of the log, in blocks of {BLOCK_SAMPLES}: {parts(log, samples)}")
    line = {
        "benchmark": "size",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "bytes/sample",
        "n": samples,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
