"""Kill -9 a writing process at random moments, and count acknowledged events that cannot be read back.

An event is acknowledged once `flush` has returned for it. After each kill: acknowledged is a subset of recovered, recovered is a prefix
of sent, and the segment reads as unclosed or torn. The peer is Python's MCAP writer, whose messages count as acknowledged when
`add_message` has returned, as it offers no other moment; it is killed far less often, since every kill loses some.

    python -m benchmarks.crash [--kills 50] [--peer-kills 12] [--seed 1]
"""

import argparse
import contextlib
import json
import os
import random
import select
import signal
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llem_events import (
    SegmentHeader,
    SegmentReader,
    SegmentWriter,
    Verdict,
    boot_id,
    read_clocks,
    unpack,
)
from llem_events.events import WarningRaised

_REPORT = struct.Struct("<QQ")  # events sent, events acknowledged
_PATIENCE_S = 30.0
_LONGEST_LIFE_S = 0.03  # after the first acknowledgement


class Killed(NamedTuple):
    """What the writing process had reported when it was killed."""

    sent: int
    acknowledged: int


class Totals:
    """What all kills have shown."""

    def __init__(self) -> None:
        self.kills = self.acknowledged = self.recovered = self.lost = self.torn = 0


def event(number: int) -> WarningRaised:
    """The event of one number; its text does not compress, so that blocks are large and kills fall into writes."""
    text = random.Random(number).randbytes(400).hex()
    return WarningRaised(code="sample_gap", text=text, value=float(number))


def kill_writer(write: Callable[[Path, int, int], None], path: Path, *, seed: int) -> Killed:
    """Fork a process that runs `write(path, report_fd, seed)`, and kill it a random moment after its first report."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException):
            write(path, writing, seed)
        os._exit(1)
    os.close(writing)
    try:
        if not select.select([reading], [], [], _PATIENCE_S)[0]:
            raise RuntimeError("the writing process reported nothing")
        time.sleep(random.Random(seed).uniform(0, _LONGEST_LIFE_S))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise RuntimeError(f"the writing process ended by itself, status {status}")
        return _last_report(reading)
    finally:
        os.close(reading)


def _last_report(reading: int) -> Killed:
    with open(reading, "rb", closefd=False) as reports:
        whole = reports.read()
    end = len(whole) - len(whole) % _REPORT.size
    sent, _ = _REPORT.unpack(whole[end - _REPORT.size : end])
    acknowledged = max(_REPORT.unpack_from(whole, at)[1] for at in range(0, end, _REPORT.size))
    return Killed(sent, acknowledged)


def write_segment(path: Path, report: int, seed: int) -> None:
    """Write blocks of random sizes for ever, saying before each block what is sent and after it what is acknowledged."""
    clocks = read_clocks()
    header = SegmentHeader(
        segment_id=os.urandom(16),
        experiment_id="20260101-000000-crash0",
        role="sampler",
        process_index=0,
        host="localhost",
        boot_id=boot_id(),
        pid=os.getpid(),
        llem_version="0",
        schema_version=1,
        monotonic_ns=clocks.monotonic_ns,
        wall_ns=clocks.wall_ns,
    )
    writer, sizes, sent = SegmentWriter(path, header), random.Random(seed), 0
    while True:
        acknowledged = sent
        for _ in range(sizes.choice((1, 10, 100, 300))):
            writer.append(event(sent))
            sent += 1
        os.write(report, _REPORT.pack(sent, acknowledged))
        writer.flush()
        os.write(report, _REPORT.pack(sent, sent))


def check_segment(path: Path, killed: Killed, totals: Totals) -> None:
    """Add one kill to the totals. Raises AssertionError where what was recovered is no prefix of what was sent."""
    recovered = 0
    with SegmentReader(path) as reader:
        for block in reader.blocks():
            for envelope in reader.events(block):
                assert unpack(envelope) == event(recovered), f"event {recovered} is not what was sent"
                recovered += 1
        assert reader.verdict in (Verdict.UNCLOSED, Verdict.TORN), reader.verdict
        totals.torn += reader.verdict is Verdict.TORN
    assert recovered <= killed.sent, f"{recovered} events recovered, {killed.sent} sent"
    totals.kills += 1
    totals.acknowledged += killed.acknowledged
    totals.recovered += recovered
    totals.lost += max(0, killed.acknowledged - recovered)


def kill_ours(kills: int, *, seed: int) -> Totals:
    """Kill as many writers of segments as asked, each with a file of its own."""
    totals = Totals()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            path = Path(folder) / f"{number}.events.zst"
            check_segment(path, kill_writer(write_segment, path, seed=seed + number), totals)
            path.unlink()
    return totals


def write_mcap(path: Path, report: int, seed: int) -> None:
    """The same events as MCAP messages, for ever."""
    from mcap.writer import Writer

    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("event", "jsonschema", b"{}")
        channel = writer.register_channel("events", "json", schema)
        sent = 0
        while True:
            body = json.dumps({"number": sent, "text": event(sent).text}).encode()
            writer.add_message(channel, log_time=sent, data=body, publish_time=sent)
            sent += 1
            os.write(report, _REPORT.pack(sent, sent))


def kill_mcap(kills: int, *, seed: int) -> Totals:
    """Kill MCAP writers and count what can be read back."""
    from mcap.exceptions import McapError
    from mcap.reader import NonSeekingReader

    totals = Totals()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            path = Path(folder) / f"{number}.mcap"
            killed = kill_writer(write_mcap, path, seed=seed + number)
            recovered = 0
            with path.open("rb") as file, contextlib.suppress(McapError, EOFError, struct.error):
                for _ in NonSeekingReader(file).iter_messages():
                    recovered += 1
            totals.kills += 1
            totals.lost += max(0, killed.acknowledged - recovered)
    return totals


def main() -> None:
    """Print the counts, and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--peer-kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ours = kill_ours(options.kills, seed=options.seed)
    print(
        f"{ours.kills} kills: {ours.acknowledged} events acknowledged, {ours.recovered} recovered, {ours.lost} lost; "
        f"{ours.torn} segments torn, {ours.kills - ours.torn} unclosed, 0 corrupt"
    )
    peer = kill_mcap(options.peer_kills, seed=options.seed) if options.peer_kills else None
    per_kill = peer.lost / peer.kills if peer else None
    line = {
        "benchmark": "crash",
        "ours": ours.lost / ours.kills,
        "peer": per_kill,
        "ratio": ours.lost / ours.kills / per_kill if per_kill else None,
        "unit": "acknowledged events lost per kill",
        "n": ours.kills,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
