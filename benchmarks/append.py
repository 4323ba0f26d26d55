"""Appending one-second blocks of 100 readings, with fdatasync after each block and without: our log, MCAP and SQLite WAL.

All get the same readings, as a sampler holds them: tuples of Python integers, a list for each second. Ours packs, compresses, digests and
writes each block; MCAP (Python package `mcap`, zstd chunks of one second, CRC) takes each reading as a message of twelve packed integers, the
cheapest encoding there is; SQLite takes each block as one transaction. The sides take turns; each keeps its best of
several rounds, because the machine's other work only ever slows one down.

    python -m benchmarks.append [--blocks 1000] [--rounds 5] [--folder DISK]
"""

import argparse
import json
import os
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mcap.writer import CompressionType, Writer

from benchmarks.h100_trace import chunks
from benchmarks.sample_files import BLOCK_SAMPLES, DEVICE_UUID, METER, segment_header
from llem_events import Reading, SegmentWriter, columns

Blocks = Sequence[Sequence[Reading]]
Append = Callable[[Path, Blocks], None]
_MESSAGE = struct.Struct("<12q")
_MESSAGE_BYTES = 31 + _MESSAGE.size  # in a chunk
_INSERT = f"INSERT INTO samples VALUES ({', '.join('?' * len(Reading._fields))})"


def readings(blocks: int) -> Blocks:
    """Seconds of readings."""
    chunk = next(chunks(blocks * BLOCK_SAMPLES, chunk=blocks * BLOCK_SAMPLES))
    rows = [Reading(*row) for row in zip(*(column.tolist() for column in chunk.values()), strict=True)]
    return [rows[start : start + BLOCK_SAMPLES] for start in range(0, len(rows), BLOCK_SAMPLES)]


def to_log(path: Path, blocks: Blocks, *, sync: bool) -> None:
    """Ours."""
    writer = SegmentWriter(path, segment_header(), sync="block" if sync else "close")
    for block in blocks:
        writer.append(columns.pack(block, meter=METER, device_uuid=DEVICE_UUID), at_ns=block[0].at_ns)
        writer.flush()
    writer.seal()


def to_mcap(path: Path, blocks: Blocks, *, sync: bool) -> None:
    """A chunk is closed when it holds a block."""
    chunk_bytes = BLOCK_SAMPLES * _MESSAGE_BYTES - 1
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_bytes, compression=CompressionType.ZSTD)
        writer.start(profile="", library="")
        schema_id = writer.register_schema(name="reading", encoding="", data=b"")
        channel_id = writer.register_channel(topic=DEVICE_UUID, message_encoding="", schema_id=schema_id)
        for block in blocks:
            for reading in block:
                at_ns = reading.at_ns
                writer.add_message(
                    channel_id=channel_id, log_time=at_ns, publish_time=at_ns, data=_MESSAGE.pack(*reading)
                )
            file.flush()
            if sync:
                os.fdatasync(file.fileno())
        writer.finish()


def to_sqlite(path: Path, blocks: Blocks, *, sync: bool) -> None:
    """Write-ahead log, a transaction for each block."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
    connection.execute(f"CREATE TABLE samples ({', '.join(Reading._fields)})")
    for block in blocks:
        connection.execute("BEGIN")
        connection.executemany(_INSERT, block)
        connection.execute("COMMIT")
    connection.close()


SIDES = {"log": to_log, "MCAP": to_mcap, "SQLite": to_sqlite}


def rates(blocks: Blocks, folder: Path, *, rounds: int, sync: bool) -> dict[str, float]:
    """Samples per second of each side, the best of its rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name, append in SIDES.items():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                began = time.perf_counter()
                append(Path(scratch, "samples"), blocks, sync=sync)
                seconds[name].append(time.perf_counter() - began)
    samples = sum(map(len, blocks))
    return {name: samples / min(taken) for name, taken in seconds.items()}


def main() -> None:
    """Measure and print; the last line is for programs and holds the worse of the two ratios to MCAP."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are written")
    chosen = parser.parse_args()
    blocks = readings(chosen.blocks)
    lines = []
    for sync in (True, False):
        found = rates(blocks, chosen.folder or Path.cwd(), rounds=chosen.rounds, sync=sync)
        said = ", ".join(f"{name} {rate / 1e3:.0f}" for name, rate in found.items())
        print(f"{'with fdatasync per block' if sync else 'without'}: {said} thousand samples/s", flush=True)
        lines.append(
            {
                "benchmark": "append",
                "ours": found["log"],
                "peer": found["MCAP"],
                "ratio": found["log"] / found["MCAP"],
                "unit": "samples/s",
                "n": chosen.blocks * BLOCK_SAMPLES,
                "synced": sync,
            }
        )
    print(json.dumps(min(lines, key=lambda line: line["ratio"])))


if __name__ == "__main__":
    main()
