"""A measured program names regions and reports work; whatever it does, it runs as it would without llem."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

import llem
from llem.measure.regions import Listener
from llem.region_lines import VARIABLE
from llem.store import Store, open_segment
from llem_events.events import Region, RegionsReported, WarningRaised, WorkReported
from tests.conftest import Run, bare_events
from tests.delays import best_of_rounds, delays
from tests.projections.tables import one, rows

AROUND = ("--meter", "simulated", "--set", "windows.baseline_s=0.1")


class Heard(msgspec.Struct):
    """What the log holds of a program."""

    regions: list[Region] = []
    work: WorkReported | None = None
    warnings: list[str] = []

    def add(self, kind: str, body: dict[str, object]) -> None:
        """One event."""
        match kind:
            case "regions_reported":
                self.regions += msgspec.convert(body, RegionsReported).regions
            case "work_reported":
                self.work = msgspec.convert(body, WorkReported)
            case "warning_raised":
                self.warnings.append(msgspec.convert(body, WarningRaised).code)

    def names(self) -> list[str]:
        """Of regions that ended, in that order."""
        return [region.name for region in self.regions if region.ended_ns is not None]


class Hearing:
    """A listener and its log; programs run under it one after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._log = open_segment(folder, experiment_id="run-1", role="worker", process_index=0, sync="close")
        self.listener = Listener(self._log)

    def start(self, program: str) -> subprocess.Popen[str]:
        """Start a program of Python that inherits the descriptor."""
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            pass_fds=[self.listener.write_end],
            env={**os.environ, **self.listener.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *, status: int = 0) -> None:
        """A program that ends as it should, and complains of nothing."""
        running = self.start(program)
        with contextlib.closing(_Ended(running)) as ended:
            while not ended():
                self.listener.hear()
        told = running.communicate()
        assert (running.returncode, *told) == (status, "", ""), told

    def heard(self) -> Heard:
        """All of it, when nothing runs any more."""
        with self.listener:
            self.listener.end()
        self._log.seal()
        heard = Heard()
        for kind, _, _, body in bare_events(next(self._folder.iterdir())):
            heard.add(kind, body)
        return heard


class _Ended:
    """Whether a process has ended, asked every few milliseconds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.01)
            return True
        return False

    def close(self) -> None:
        self._process.kill()


@pytest.fixture
def hearing(tmp_path: Path) -> Hearing:
    """A listener on a log of its own."""
    return Hearing(tmp_path / "run-1")


@pytest.mark.slow
def test_energy_and_tokens_of_the_regions_of_a_measured_program(llem: Run, store: Path) -> None:
    """Steps within an epoch have windows of their own; tokens make J/token; what is too short says so."""
    program = """
        import time, llem
        @llem.region("too short")
        def nothing(): return 7
        with llem.region("epoch"):
            for _ in range(2):
                with llem.region("step"):
                    time.sleep(0.3)
                    llem.report(tokens=150, requests=1)
        assert nothing() == 7
    """
    done = llem("measure", *AROUND, "--", sys.executable, "-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr
    place = Store(store)
    windows = rows(place, "FROM windows WHERE kind = 'region' ORDER BY window_index")
    assert [(row["name"], row["parent_index"], row["tokens"], row["closed"]) for row in windows] == [
        ("epoch", None, 300, True),
        ("step", 0, 150, True),
        ("step", 0, 150, True),
        ("too short", None, None, True),
    ]
    for row in windows[:3]:
        # On a busy machine a sampler may be late by more than a twentieth of so short a region.
        if row["reason"] != "samples are missing in it":
            assert row["energy_j"] == pytest.approx(100 * row["duration_sec"], rel=0.1)
            assert row["energy_source"] == "simulated"
    assert windows[3]["energy_j"] is None and "less than the 50 ms" in windows[3]["reason"]
    result = one(place, "FROM experiment_results")
    assert (result["total_tokens"], result["requests"], result["output_tokens"]) == (300, 2, None)
    assert result["avg_energy_per_token_j"] == pytest.approx(result["total_energy_j"] / 300)
    screen = llem("show").stdout
    assert "epoch" in screen and "J/token" in screen and "region too short: 0 of 1 have an energy" in screen


@pytest.mark.slow
@best_of_rounds
def test_a_program_in_a_study(llem: Run, store: Path, tmp_path: Path) -> None:
    """It finds the labels of its cell, and its cells are compared by what it reports."""
    plan = tmp_path / "study.toml"
    plan.write_text(
        '[meter]\nname = "simulated"\n[windows]\nbaseline_s = 0.1\nbaseline_after_s = 0.0\n'
        '[study]\nrepeats = 2\n[study.vary]\n"labels.size" = ["1", "4"]\n'
    )
    program = """
        import json, os, time, llem
        size = int(json.loads(os.environ["LLEM_LABELS"])["size"])
        with llem.region("train"):
            time.sleep(0.4)
            llem.report(tokens=100 * size)
    """
    done = llem("study", plan, "--", sys.executable, "-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr
    by_size = "SELECT labels['size'] AS size, total_tokens FROM experiment_results ORDER BY ALL"
    assert [tuple(row.values()) for row in rows(Store(store), by_size)] == [
        ("1", 100),
        ("1", 100),
        ("4", 400),
        ("4", 400),
    ]
    told = llem("compare", "size=1", "size=4", "-f", "csv").stdout
    (energy,) = [line.split(",") for line in told.splitlines() if ",avg_energy_per_token_j," in line]
    with delays():  # of a Python that starts
        assert float(energy[7]) == pytest.approx(0.25, rel=0.2)
    cells = "SELECT size, name, sum(tokens) AS tokens FROM regions JOIN (SELECT experiment_id, labels['size'] AS size FROM experiments) USING (experiment_id) GROUP BY ALL"
    assert {(row["size"], row["tokens"]) for row in rows(Store(store), cells)} == {("1", 200), ("4", 800)}


def test_outside_of_llem_nothing_happens() -> None:
    """The same program runs alone, and where the environment names a pipe that is none."""
    program = "import llem\nwith llem.region('a'):\n  llem.report(tokens=1)\n@llem.region('b')\ndef f(): return 1\nassert f() == 1"
    for place in (None, "", "nonsense", "1:2:3:4", "-1:-1:0:0", f"2:{os.getpid()}:0:0", "9" * 4000):
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        if place is not None:
            environment[VARIABLE] = place
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), place


def test_what_a_program_loads_for_it() -> None:
    """Neither a database nor a command line, numpy, msgspec or anything of torch."""
    program = "import llem, sys; llem.region, llem.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name for name in done.stdout.split() if name.startswith("llem.")} == {
        "llem.versions",
        "llem.instrumentation",
        "llem.region_lines",
    }
    heavy = {"duckdb", "typer", "rich", "numpy", "msgspec", "torch", "zstandard", "asyncio", "inspect"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.slow
def test_the_name_stays_a_function() -> None:
    """`llem.report` is a call also where pages were made in the same process, in whichever order."""
    for first in (
        "import llem.reporting.page",
        "llem.report(tokens=1); import llem.reporting.page",
        "llem.open_store",
    ):
        program = f"import llem; {first}; llem.report(tokens=1); from llem.reporting.page import page; llem.report(requests=1)"
        subprocess.run([sys.executable, "-c", program], check=True)


def test_threads_tasks_and_functions(hearing: Hearing) -> None:
    """Each thread and task has its own innermost region; a decorated function counts as one region for each call."""
    hearing.run(
        """
        import asyncio, threading, llem
        def work(name):
            with llem.region(name):
                with llem.region(f"{name} inner"):
                    llem.report(output_tokens=2)
        with llem.region("outer"):
            threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(8)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        @llem.region("task")
        async def task():
            await asyncio.sleep(0)
            with llem.region("part"):
                await asyncio.sleep(0)
        async def both():
            await asyncio.gather(task(), task())
        asyncio.run(both())
        @llem.region("twice")
        def down(n):
            return n and down(n - 1)
        down(1)
        again = llem.region("again")
        with again, again:
            pass
        try:
            with llem.region("raises"):
                raise KeyError
        except KeyError:
            pass
        """
    )
    heard = hearing.heard()
    ended = {region.index: region for region in heard.regions}
    parents = sorted(
        (region.name, "" if region.parent_index is None else ended[region.parent_index].name)
        for region in ended.values()
    )
    threads = [pair for n in range(8) for pair in ((f"thread {n}", ""), (f"thread {n} inner", f"thread {n}"))]
    assert parents == sorted(
        [
            ("outer", ""),
            ("task", ""),
            ("task", ""),
            ("part", "task"),
            ("part", "task"),
            ("twice", ""),
            ("twice", "twice"),
            ("again", ""),
            ("again", "again"),
            ("raises", ""),
            *threads,
        ]
    )
    assert all(region.ended_ns is not None for region in ended.values())
    assert {ended[n].tokens for n in ended if "thread" in ended[n].name} == {2}
    assert heard.work == WorkReported(tokens=16, output_tokens=16) and heard.warnings == []


def test_children_of_the_program_are_heard(hearing: Hearing) -> None:
    """Forked within a region, and started anew without inherited descriptors; each region ends once, where it began."""
    hearing.run(
        """
        import os, subprocess, sys, llem
        llem.report(tokens=1, requests=1)
        with llem.region("around"):
            child = os.fork()
            with llem.region("of the child" if child == 0 else "of the parent"):
                llem.report(tokens=10)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        grandchild = "import llem\\nwith llem.region('spawned'): llem.report(tokens=100)"
        subprocess.run([sys.executable, "-c", grandchild], check=True)
        """
    )
    heard = hearing.heard()
    assert sorted(heard.names()) == ["around", "of the child", "of the parent", "spawned"]
    around = next(region for region in heard.regions if region.name == "around")
    assert {region.parent_index for region in heard.regions if region.name.startswith("of the")} == {
        around.index
    }
    assert len({region.process for region in heard.regions}) == 3
    assert heard.work == WorkReported(tokens=121, requests=1)


def test_many_regions(hearing: Hearing) -> None:
    """Thousands of short ones are all there, in as many events as they need."""
    hearing.run(
        "import llem\nfor n in range(6000):\n  with llem.region('step'): llem.report(tokens=1)\nllem.report(tokens=1)"
    )
    heard = hearing.heard()
    indices = {region.index for region in heard.regions if region.ended_ns is not None}
    assert (indices, heard.warnings) == (set(range(6000)), [])
    assert heard.work == WorkReported(tokens=6001)


def test_names_of_strangers(hearing: Hearing) -> None:
    """No name breaks a line, drives a terminal or fills a log; what is no name at all is refused with and without llem."""
    hearing.run(
        """
        import llem
        for name in ("a\\tb\\nregion\\x1b[2J", "x" * 10**6, "\\ud800", "\\x85\\u2028é 日本", "", "\\0"):
            with llem.region(name):
                pass
        """
    )
    names = hearing.heard().names()
    assert names[0] == "a\\x09b\\x0aregion\\x1b[2J" and names[1] == "x" * 120
    assert len(names) == 6 and names[3:] == ["\x85\u2028é 日本", "", "\\x00"]
    assert not any(character in name for name in names for character in "\n\t\x1b\0")
    with pytest.raises(TypeError, match="name of a region: found int, expected str"):
        llem.region(3)  # type: ignore[arg-type]


def test_arguments_that_are_wrong() -> None:
    """They are so with and without llem, so that no program fails only when it is measured."""
    with pytest.raises(ValueError, match="tokens: found -1"):
        llem.report(tokens=-1)
    with pytest.raises(TypeError):
        llem.report(tokens=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least those of input and output"):
        llem.report(tokens=1, output_tokens=2)
    with pytest.raises(TypeError, match="generator"):

        @llem.region("steps")
        def steps():  # type: ignore[no-untyped-def]
            yield 1


def test_a_program_that_closes_every_descriptor(hearing: Hearing, tmp_path: Path) -> None:
    """Its own files, which then get the same numbers, are never written to; regions go on through the holder's descriptor."""
    hearing.run(
        f"""
        import os, llem
        with llem.region("before"):
            pass
        os.closerange(3, 100)
        files = [open({str(tmp_path)!r} + f"/own-{{n}}", "wb") for n in range(40)]
        with llem.region("after"):
            llem.report(tokens=5)
        """
    )
    heard = hearing.heard()
    assert heard.names() == ["before", "after"] and heard.work == WorkReported(tokens=5)
    assert {path.stat().st_size for path in tmp_path.glob("own-*")} == {0}


def test_a_program_that_is_killed_inside_a_region(hearing: Hearing) -> None:
    """The region is there without its end."""
    hearing.run(
        "import os, llem\nllem.region('outer').__enter__()\nwith llem.region('inner'): llem.report(tokens=3)\nos.kill(os.getpid(), 9)",
        status=-signal.SIGKILL,
    )
    heard = hearing.heard()
    assert [(region.name, region.ended_ns is None) for region in heard.regions] == [
        ("inner", False),
        ("outer", True),
    ]
    assert heard.work == WorkReported(tokens=3)


def test_garbage_on_the_descriptor(hearing: Hearing) -> None:
    """It is left out and counted, and hides no region around it."""
    hearing.run(
        f"""
        import os, llem
        fd = int(os.environ["{VARIABLE}"].split(":")[0])
        with llem.region("a"):
            os.write(fd, b"half a line")
        for garbage in (os.urandom(5000), b"region\\t1\\t0\\t0\\t\\t5\\t3\\t\\t\\tx\\n", b"work\\t\\t\\t\\t\\t\\t\\n",
                        b"region\\ta\\t0\\t0\\t\\t99999999999999999999\\t\\t\\t\\tx\\n", b"\\n" * 3000, b"\\xff\\xfe\\n"):
            os.write(fd, garbage)
            with llem.region("b"):
                llem.report(tokens=1)
        """
    )
    heard = hearing.heard()
    assert heard.names() == ["a", *["b"] * 6] and heard.work == WorkReported(tokens=6)
    assert heard.warnings == ["region_messages_refused"]


@pytest.mark.parametrize(
    ("reports", "work", "warnings"),
    [
        (["tokens=100", "output_tokens=10"], {"tokens": 110}, ["output_tokens_told_in_part"]),
        (
            ["tokens=100, input_tokens=80", "input_tokens=5, output_tokens=10"],
            {"tokens": 115, "input_tokens": 85},
            ["output_tokens_told_in_part"],
        ),
        (
            ["tokens=100, output_tokens=20", "input_tokens=5, output_tokens=10"],
            {"tokens": 115, "output_tokens": 30},
            ["input_tokens_told_in_part"],
        ),
        (
            ["tokens=100, output_tokens=20", "tokens=50, output_tokens=5"],
            {"tokens": 150, "output_tokens": 25},
            [],
        ),
        (
            ["input_tokens=100", "output_tokens=20", "requests=1"],
            {"tokens": 120, "input_tokens": 100, "output_tokens": 20, "requests": 1},
            [],
        ),
    ],
)
def test_tokens_that_are_told_apart_in_some_reports_only(
    hearing: Hearing, reports: list[str], work: dict[str, int], warnings: list[str]
) -> None:
    """They are not known, and a warning says so; one report may tell all tokens and how many of them are output."""
    calls = [f"llem.report({report})" for report in reports]
    hearing.run("import llem; " + "; ".join(calls))
    heard = hearing.heard()
    assert heard.work == WorkReported(**work) and heard.warnings == warnings


def test_tokens_that_one_process_tells_apart_and_another_does_not(hearing: Hearing) -> None:
    """Output tokens are those of all processes, or not known."""
    hearing.run("import llem; llem.report(output_tokens=10)")
    hearing.run("import llem; llem.report(tokens=100)")
    heard = hearing.heard()
    assert heard.work == WorkReported(tokens=110) and heard.warnings == ["output_tokens_told_in_part"]


def test_a_program_never_waits_for_llem(hearing: Hearing) -> None:
    """Where nobody reads, what finds no room is lost and counted; tokens are not, because each report holds all before it."""
    running = hearing.start(
        """
        import llem
        for n in range(4000):
            with llem.region("x" * 100): llem.report(tokens=1)
        print("full", flush=True)
        input()
        llem.report(tokens=1)
        """
    )
    assert running.stdout is not None and running.stdout.readline() == "full\n"
    hearing.listener.hear()
    assert running.communicate("go\n")[1] == "" and running.returncode == 0
    heard = hearing.heard()
    assert heard.warnings == ["region_messages_lost"] and heard.work == WorkReported(tokens=4001)


def test_a_program_that_outlives_llem(hearing: Hearing) -> None:
    """Neither a signal nor an error comes of a pipe that nobody reads any more."""
    running = hearing.start(
        """
        import signal, llem
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with llem.region("a"):
            print("in", flush=True)
            input()
        for n in range(4000):
            with llem.region("x" * 100): llem.report(tokens=1)
        """
    )
    assert running.stdout is not None and running.stdout.readline() == "in\n"
    heard = hearing.heard()
    assert [region.ended_ns for region in heard.regions] == [None]
    assert running.communicate("go\n") == ("", "") and running.returncode == 0
