"""Appending one-second blocks of 100 samples, without fdatasync and with one after each block: our log, MCAP and SQLite WAL.

All get the same blocks: matrices of 64-bit integers, a row for each sample. Ours encodes, compresses, digests and writes each block; MCAP (Python package `mcap`, zstd chunks of one second, CRC) takes each row as a message of twelve packed integers, the
cheapest encoding there is; SQLite takes each block as one transaction. A figure of its own is ours from a meter's readings, whose Python
integers become a matrix first, as in the sampler. The sides take turns; each keeps its best of several rounds, because the
machine's other work only ever slows one down. An fdatasync takes many times what comes before it, on every side alike.

    python -m benchmarks.append [--blocks 1000] [--rounds 5] [--folder DISK]
"""

import argparse
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mcap.writer import CompressionType, Writer

from benchmarks.h100_trace import chunks
from benchmarks.sample_files import BLOCK_SAMPLES, DEVICE_UUID, METER, segment_header
from llem_events import SAMPLE_COLUMNS, Reading, SegmentWriter, columns

Blocks = Sequence[npt.NDArray[np.int64]]
_ROW_BYTES = 8 * len(SAMPLE_COLUMNS)
_MESSAGE_BYTES = 31 + _ROW_BYTES  # in a chunk
_INSERT = f"INSERT INTO samples VALUES ({', '.join('?' * len(SAMPLE_COLUMNS))})"


def sample_blocks(count: int) -> Blocks:
    """Seconds of samples."""
    chunk = next(chunks(count * BLOCK_SAMPLES, chunk=count * BLOCK_SAMPLES))
    rows = np.stack([chunk[name] for name in SAMPLE_COLUMNS], axis=1)
    return np.split(rows, count)


def to_log(path: Path, blocks: Blocks, *, sync: bool) -> None:
    """Ours."""
    writer = SegmentWriter(path, segment_header(), sync="block" if sync else "close")
    for block in blocks:
        event = columns.encode(block, meter=METER, device_uuid=DEVICE_UUID)
        writer.append(event, at_ns=int(block[0, 0]))
        writer.flush()
    writer.seal()


def readings_to_log(path: Path, blocks: Sequence[Sequence[Reading]], *, sync: bool) -> None:
    """Ours, from a meter's readings."""
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
        schema_id = writer.register_schema(name="sample", encoding="", data=b"")
        channel_id = writer.register_channel(topic=DEVICE_UUID, message_encoding="", schema_id=schema_id)
        for block in blocks:
            packed = block.tobytes()
            for start, at_ns in zip(range(0, len(packed), _ROW_BYTES), block[:, 0].tolist(), strict=True):
                row = packed[start : start + _ROW_BYTES]
                writer.add_message(channel_id=channel_id, log_time=at_ns, publish_time=at_ns, data=row)
            file.flush()
            if sync:
                os.fdatasync(file.fileno())
        writer.finish()


def to_sqlite(path: Path, blocks: Blocks, *, sync: bool) -> None:
    """Write-ahead log, a transaction for each block."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
    connection.execute(f"CREATE TABLE samples ({', '.join(SAMPLE_COLUMNS)})")
    for block in blocks:
        connection.execute("BEGIN")
        connection.executemany(_INSERT, block.tolist())
        connection.execute("COMMIT")
    connection.close()


def rates(blocks: Blocks, folder: Path, *, rounds: int, sync: bool) -> dict[str, float]:
    """Samples per second of each side, the best of its rounds."""
    readings = [[Reading(*row) for row in block.tolist()] for block in blocks]
    sides: dict[str, Callable[[Path], None]] = {
        "log": lambda path: to_log(path, blocks, sync=sync),
        "MCAP": lambda path: to_mcap(path, blocks, sync=sync),
        "SQLite": lambda path: to_sqlite(path, blocks, sync=sync),
        "log from readings": lambda path: readings_to_log(path, readings, sync=sync),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, append in sides.items():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                began = time.perf_counter()
                append(Path(scratch, "samples"))
                seconds[name].append(time.perf_counter() - began)
    samples = sum(map(len, blocks))
    return {name: samples / min(taken) for name, taken in seconds.items()}


def main() -> None:
    """Measure and print; the last line is for programs, and its ratio is the one without fdatasync."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are written")
    chosen = parser.parse_args()
    blocks = sample_blocks(chosen.blocks)
    found = {}
    for sync in (False, True):
        found[sync] = rates(blocks, chosen.folder or Path.cwd(), rounds=chosen.rounds, sync=sync)
        said = ", ".join(f"{name} {rate / 1e3:.0f}" for name, rate in found[sync].items())
        print(f"{'with fdatasync per block' if sync else 'without'}: {said} thousand samples/s", flush=True)
    line = {
        "benchmark": "append",
        "ours": found[False]["log"],
        "peer": found[False]["MCAP"],
        "ratio": found[False]["log"] / found[False]["MCAP"],
        "unit": "samples/s",
        "n": chosen.blocks * BLOCK_SAMPLES,
        "ratio_from_readings": found[False]["log from readings"] / found[False]["MCAP"],
        "ratio_synced": found[True]["log"] / found[True]["MCAP"],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
