"""What a region costs the program that names it: under llem, outside of it, and what llem spends on hearing of it.

The peer is a line before and a line after, appended to a file, as a program would keep times of its own. CPU time per region, the median of
several rounds of each in turn; loading `llem.region` is that of a whole process over one that loads nothing. Run without llem, or it measures itself.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llem.measure.regions import Listener
from llem.region_lines import VARIABLE
from llem.store import open_segment

ROUNDS = 7
TIMED = """
import time, sys
{setup}
def once(n):
    began = time.process_time_ns()
    for _ in range(n):
        {work}
    return (time.process_time_ns() - began) / n / 1000
print(sorted(once({pieces}) for _ in range({rounds}))[{rounds} // 2])
"""
REGION = (
    "import llem\nregion, report = llem.region, llem.report",
    "\n        with region('step'): report(tokens=8)",
)
LINES = (
    "import os\nout = os.open({file!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)",
    "os.write(out, b'step began %d\\n' % time.monotonic_ns()); os.write(out, b'step ended %d\\n' % time.monotonic_ns())",
)


def microseconds(setup: str, work: str, *, pieces: int, listener: Listener | None) -> float:
    """CPU time of one piece of work in a program of its own; a listener hears of it meanwhile."""
    program = TIMED.format(setup=setup, work=work, pieces=pieces, rounds=ROUNDS)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **(listener.environment if listener else {})},
        pass_fds=[listener.write_end] if listener else [],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        while listener is not None and running.poll() is None:
            listener.hear()
            time.sleep(0.02)
        return float(running.stdout.read())


def loading_ms() -> float:
    """CPU time of a process that loads `llem.region`, over one that loads nothing."""
    return 1000 * (_child_s("import llem; llem.region") - _child_s("pass"))


def _child_s(program: str) -> float:
    spent = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


def main() -> None:
    """Print them, and the ratio of the peer to ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=2000, help="of each round")
    pieces = parser.parse_args().regions
    os.environ.pop(VARIABLE, None)
    with tempfile.TemporaryDirectory() as folder:
        log = open_segment(Path(folder), experiment_id="bench", role="worker", process_index=0, sync="close")
        with Listener(log) as listener:
            before_s = time.process_time()
            ours = microseconds(*REGION, pieces=pieces, listener=listener)
            listener.end()
            hearing = (time.process_time() - before_s) * 1e6 / (pieces * ROUNDS)
        log.close()
        file = str(Path(folder) / "lines.txt")
        peer = microseconds(LINES[0].format(file=file), LINES[1], pieces=pieces, listener=None)
    outside = microseconds(*REGION, pieces=pieces, listener=None)
    print(f"a region with a report: {ours:.1f} us of CPU time, outside of llem {outside:.2f} us")
    print(f"llem spends {hearing:.1f} us on each; two lines in a file cost {peer:.1f} us")
    print(f"loading it takes {loading_ms():.0f} ms")
    figures = {"outside_us": outside, "hearing_us": hearing}
    print(
        json.dumps(
            {
                "benchmark": "regions",
                "ours": ours,
                "peer": peer,
                "ratio": peer / ours,
                "unit": "us",
                "n": pieces * ROUNDS,
                **figures,
            }
        )
    )


if __name__ == "__main__":
    main()
