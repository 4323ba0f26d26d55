"""Odd inputs never end in an internal error: every command answers with a status of its own and says why.

LLEM_FUZZ_SECONDS sets how long each target is tried (10 unless set), LLEM_FUZZ_SEED where its seeds begin (0 unless either is set). A failure prints its
seed: LLEM_FUZZ_SEED=N LLEM_FUZZ_SECONDS=0 runs that case alone.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import QUICK, SIMULATED
from tests.fuzz import inputs
from tests.fuzz.inputs import Odd
from tests.fuzz.program import Ended, call, start

PREDECESSOR = Path(__file__).parent.parent / "export" / "predecessor_result.json"
SECONDS = float(os.environ.get("LLEM_FUZZ_SECONDS", "10"))
SEED = os.environ.get("LLEM_FUZZ_SEED")
CHILD_EVERY = 25
SHORT = (
    *("--set", "workload.min_duration_s=0"),
    *("--set", "workload.max_duration_s=1"),
    *("--set", "windows.baseline_s=0.1"),
    *("--set", "windows.baseline_after_s=0"),
    *("--set", "windows.warmup_min_batches=1"),
    *("--set", "windows.warmup_max_batches=2"),
)
Case = Callable[[Odd, Path], Iterator[Ended]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in that holds all that the commands may touch."""
    monkeypatch.setenv("LLEM_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def measured_folder(folder: Path) -> Path:
    """The same, with one short measurement in its store."""
    done = start(["measure", *SIMULATED, *QUICK], folder=folder)
    assert done.status == 0, done.err
    return folder


def paths(folder: Path) -> list[str]:
    """Names of files that are there and of some that are not; all of them may be lost."""
    (folder / "x.toml").write_text("[engine]\nbatch_size = 3\n")
    (folder / "binary").write_bytes(bytes(range(256)) * 9)
    (folder / "empty").write_bytes(b"")
    (folder / "result.json").write_bytes(PREDECESSOR.read_bytes())
    (folder / "sub").mkdir(exist_ok=True)
    store = Path(os.environ["LLEM_DIR"])
    return [
        *(
            "x.toml",
            "binary",
            "empty",
            "result.json",
            "sub",
            "new.csv",
            "sub/new.json",
            "no/such",
            "/dev/null",
            "sub/store",
        ),
        *(
            str(store),
            str(store / "projections.duckdb"),
            *map(str, store.glob("log/*")),
            *map(str, store.glob("log/*/*")),
        ),
    ]


@cache
def known_commands() -> list[inputs.Command]:
    """The commands as the program itself describes them."""
    here = Path.cwd()
    return inputs.commands(lambda *words: call([*words, "-h"], folder=here).out.decode())


def command_lines(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Any command with any options."""
    arguments = inputs.command_line(odd, paths(folder), known_commands())
    yield call(arguments, folder=folder, stdin=b"select 1")
    if odd.randrange(CHILD_EVERY) == 0:
        yield start(arguments, folder=folder, stdin=b"select 1")


def statements(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Any SQL, as an argument."""
    kind = odd.choice(["table", "lines", "csv", "json", "jsonl", "md"])
    options = odd.choice([[], ["-p", f"x={odd.text()}"], ["--limit", "2"]])
    yield call(["query", inputs.sql(odd), "-f", kind, "--timeout", "3", *options], folder=folder)


def standard_input(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Any bytes as SQL on standard input, as one statement or many."""
    written = odd.mutated(inputs.sql(odd).encode(errors="surrogateescape"))
    yield call([*odd.choice([["query", "-"], ["shell"]]), "--timeout", "3"], folder=folder, stdin=written)


def prompt_files(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Any bytes as prompts: read by a measurement that then has too few of them, and now and then measured."""
    name = odd.choice(["prompts", "p.jsonl", "p.csv", "p.json.gz", "p.txt"])
    (folder / name).write_bytes(inputs.prompt_file(odd))
    settings = [*SIMULATED, "--set", f"workload.path={name}", "--set", "workload.requests=9"]
    ended = call(["measure", *settings, "--workers", "10"], folder=folder)
    yield ended
    if odd.randrange(CHILD_EVERY * 2) == 0:
        brief = [
            "--set",
            "workload.output_tokens.mean=1",
            "--set",
            "workload.min_duration_s=0",
            "--set",
            "windows.baseline_s=0",
        ]
        yield start(["measure", *settings, *brief, *QUICK, "--store", "prompts-store"], folder=folder)


def imports(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Any file as an import; whatever became of it, the store answers afterwards."""
    store = ["--store", str(folder / "imports-store")]
    (folder / "result.json").write_bytes(inputs.imported_file(odd, PREDECESSOR))
    yield call(["import", "result.json", *store], folder=folder)
    if odd.randrange(5) == 0 and (folder / "imports-store").exists():
        for command in (
            ["runs"],
            ["query", "select * from experiment_results"],
            ["export", "-"],
            ["log", "verify"],
        ):
            yield call([*command, *store], folder=folder)


def plans(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Any plan; one that is understood prints a plan that is understood and prints the same."""
    usual = call(["measure", "--engine", "simulated", "--dry-run"], folder=folder).out.decode()
    (folder / "plan.toml").write_bytes(inputs.plan_file(odd, usual))
    first = call(["measure", "plan.toml", "--dry-run"], folder=folder)
    yield first
    if first.status == 0:
        (folder / "again.toml").write_bytes(first.out)
        again = call(["measure", "again.toml", "--dry-run"], folder=folder)
        yield again
        assert again.out == first.out, "a printed plan does not read back"


def measurements(odd: Odd, folder: Path) -> Iterator[Ended]:
    """Short measurements with odd settings of everything that is simulated."""
    arguments = ["measure", *SIMULATED, *inputs.settings(odd), *SHORT, "--store", str(folder / "odd-store")]
    yield start(arguments, folder=folder)
    if odd.randrange(5) == 0:
        yield call(["runs", "--store", str(folder / "odd-store")], folder=folder)


TARGETS: dict[str, Case] = {
    "command lines": command_lines,
    "SQL": statements,
    "standard input": standard_input,
    "prompt files": prompt_files,
    "imports": imports,
    "plans": plans,
    "measurements": measurements,
}


def try_seed(case: Case, seed: int, folder: Path) -> None:
    """One case; its failure names the seed."""
    try:
        complaints = [complaint for ended in case(Odd(seed), folder) if (complaint := ended.complaint())]
    except Exception as error:
        raise AssertionError(f"LLEM_FUZZ_SEED={seed}: {type(error).__name__}: {error}") from error
    assert not complaints, f"LLEM_FUZZ_SEED={seed}: {complaints[0]}"


@pytest.mark.parametrize("case", [plans, prompt_files], ids=["plans", "prompt files"])
def test_a_few_odd_inputs(case: Case, folder: Path) -> None:
    """The same few cases every time."""
    for seed in range(25):
        try_seed(case, seed, folder)


def test_every_command_and_option_is_tried() -> None:
    """The commands are taken from the program, so that no new option is forgotten."""
    known = {command.words: command for command in known_commands()}
    assert ("log", "cat") in known and ("measure", "--dry-run") in known
    assert {"--set", "--gpu", "--store"} <= known[("measure", "--dry-run")].options.keys()
    assert "--json" in known[("runs",)].flags
    assert "parquet" in known[("query",)].options["--format"]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("case", TARGETS.values(), ids=TARGETS.keys())
def test_odd_inputs(case: Case, measured_folder: Path) -> None:
    """New cases every time, for as long as LLEM_FUZZ_SECONDS says."""
    # the same ones whenever all tests run; `just fuzz` asks for a time, and tries others
    drawn = random.SystemRandom().randrange(10**9) if "LLEM_FUZZ_SECONDS" in os.environ else 0
    seed = int(SEED) if SEED else drawn
    deadline, tried = time.monotonic() + SECONDS, 0
    while tried == 0 or time.monotonic() < deadline:
        try_seed(case, seed + tried, measured_folder)
        tried += 1
    print(f"{tried} cases, the first of them LLEM_FUZZ_SEED={seed}", file=sys.stderr)
