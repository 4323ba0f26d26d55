"""Puts small random faults into a room of the code, one at a time, and counts those that the tests of that room notice.

    python -m tests.mutants --room log --count 70 --seed 1

Works on a copy of the tree in a temporary folder. A fault that stays unnoticed gets a test, or a line in MUTANTS.md that says why it
cannot matter. Our own code, because what is well kept brings much more than it saves: mutmut a terminal interface, coverage and a parser,
cosmic-ray a database and a web client.
"""

import argparse
import ast
import gc
import hashlib
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple, Self

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).parents[1]
ROOMS = {"log": "events/llem_events", "results": "llem/results", "projections": "llem/projections"}
# Tests of a module that stand elsewhere, because they ask a simulated driver.
ELSEWHERE = {"results": ("tests/meters/test_calibration.py", "tests/meters/test_averaged_power.py")}
LOOKED_AT = Path(__file__).with_name("MUTANTS.md")
# Keywords of a class that forbid something to its user or spare memory: working code is the same without them.
RESTRAINTS = {"frozen", "kw_only", "gc", "eq", "slots"}
# Conditions of what runs for a checker of types, or in a program of its own.
NEVER_RUN = ("TYPE_CHECKING", "__name__ == '__main__'")
SWAPPED = [
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
    *((ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div)),
]
OPPOSITES = {**dict(SWAPPED), **{after: before for before, after in SWAPPED}}
# A test that starts a process, or has the one that is there fork, may call anything.
STARTS_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
FORKED = "tests/forked.py:"
AT_IMPORT = "at import"
LEARNED = ROOT / "build" / "mutants"
ORDERS = "LLEM_MUTANTS_ORDERS"
NOT_PUT_IN = 77
FAST, SLOW = "not slow", "slow"
PYTEST = ("-qx", "-n0", "-p", "no:cacheprovider", "-p", "tests.mutants")


class Mutant(NamedTuple):
    """A fault: the bytes from `start` to `end` of a file become `text`."""

    path: Path
    original: bytes
    line: int
    start: int
    end: int
    text: str
    function: int | None  # the line where the function around it begins; None where it runs at the import

    def source(self) -> bytes:
        """The file with the fault in it."""
        return self.original[: self.start] + self.text.encode() + self.original[self.end :]

    def diff(self) -> str:
        """The line as it is and as it becomes; MUTANTS.md names faults so."""
        lines = [text.decode().splitlines() for text in (self.original, self.source())]
        before, after = (text[self.line - 1].strip() for text in lines)
        return f"--- {self.path}\n- {before}\n+ {after}\n"


def faults(node: ast.AST) -> Iterator[ast.AST | str]:
    """What may stand in the place of a piece of code."""
    match node:
        case ast.Compare():
            for at, operator in enumerate(node.ops):
                operators = [*node.ops[:at], OPPOSITES[type(operator)](), *node.ops[at + 1 :]]
                yield ast.Compare(node.left, operators, node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(OPPOSITES[type(node.op)](), node.values)
        case ast.BinOp() if type(node.op) in OPPOSITES:
            yield ast.BinOp(node.left, OPPOSITES[type(node.op)](), node.right)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=str()) if node.value.isidentifier():
            yield ast.Constant(f"{node.value}x")
        case ast.Return(value=ast.expr()) if ast.unparse(node.value) not in ("None", "False"):
            yield "return None"
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()) | ast.AugAssign() | ast.Raise():
            yield "pass"
        case (
            ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
            | ast.Continue()
            | ast.Break()
            | ast.Delete()
        ):
            yield "pass"
        case ast.If() if ast.unparse(node.test) in NEVER_RUN:
            return
        case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, ast.Compare | ast.Constant):
            yield ast.UnaryOp(ast.Not(), node.test)


def pieces(node: ast.AST) -> Iterator[ast.AST]:
    """Every piece of code below a node that a fault can touch: no annotation, no text for people, no list of names."""
    yield node
    for child in ast.iter_child_nodes(node):
        if child not in _untouched(node):
            yield from pieces(child)


def _untouched(node: ast.AST) -> list[ast.AST | None]:
    match node:
        case ast.AnnAssign() | ast.arg():
            return [node.annotation]
        case ast.FunctionDef():
            return [node.returns, *node.decorator_list]
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.Expr(value=ast.Constant()):
            return [node.value]
        case ast.Assign(targets=[ast.Attribute(attr="_fields_")]):
            # fields of a Struct of C, which others tell by their order
            return [node.value]
        case ast.Raise():
            return [node.exc, node.cause]
        case ast.JoinedStr():
            return list(node.values)
        # of its order of bits numpy looks at the first letter
        case ast.keyword() if node.arg in RESTRAINTS | {"bitorder"}:
            return [node.value]
        case ast.Call(func=ast.Name(id="zip")):
            return [each for each in node.keywords if each.arg == "strict"]
        case ast.Call(func=ast.Attribute(attr="reshape")):
            # numpy takes any negative length for the one that it has to find
            return [each for each in node.args if isinstance(each, ast.UnaryOp)]
        case ast.Subscript(value=ast.Name(id="Literal")):
            return [node.slice]
        case ast.Call(func=ast.Name(id="TypeVar")):
            return node.args[:1]
        case ast.If() if ast.unparse(node.test) in NEVER_RUN:
            return [node.test]
    return []


def mutants(path: Path, root: Path = ROOT) -> Iterator[Mutant]:
    """Every fault that fits into a file."""
    source = (root / path).read_bytes()
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in pieces(tree):
        for fault in faults(node):
            place: Any = node.test if isinstance(node, ast.If | ast.While | ast.IfExp) else node
            start, end = (starts[at - 1] for at in (place.lineno, place.end_lineno))
            text = fault if isinstance(fault, str) else _expression(fault)
            yield Mutant(
                path,
                source,
                place.lineno,
                start + place.col_offset,
                end + place.end_col_offset,
                text,
                _function_around(place.lineno, functions),
            )


def _function_around(line: int, functions: Sequence[ast.FunctionDef]) -> int | None:
    """As the compiler tells where the innermost one begins: with its first decorator."""
    around = [node for node in functions if node.body[0].lineno <= line <= (node.end_lineno or 0)]
    if not around:
        return None
    innermost = max(around, key=lambda node: node.lineno)
    return min(node.lineno for node in (innermost, *innermost.decorator_list))


def _expression(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Constant) else f"({ast.unparse(node)})"


class Outcome(NamedTuple):
    """The processor seconds of each test, those that failed, and the functions that each called; None where it started a process."""

    seconds: dict[str, float]
    failed: list[str]
    calls: dict[str, list[str] | None]


class Lesson(NamedTuple):
    """What was learned of a file of tests while it had this digest."""

    digest: str
    seconds: dict[str, float]
    calls: dict[str, list[str] | None]


class Copy:
    """A copy of the tree, and the tests of one room in it."""

    def __init__(self, folder: Path, room: str, patience_s: float) -> None:
        self.folder, self.room, self.patience_s = folder, room, patience_s
        self.seconds: dict[str, float] = {}
        self.slow_s = 0.0
        self.calls: dict[str, list[str] | None] = {}
        self.at_import: set[str] = set()
        self.noticed: Counter[str] = Counter()
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        self._names = [
            name
            for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")
            if (ROOT / name).is_file()
        ]
        for name in self._names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        self.tests = [name for name in self._names if self._is_asked(name)]

    def _is_asked(self, name: str) -> bool:
        of_room = name.startswith(f"tests/{self.room}/") and Path(name).name.startswith("test_")
        return of_room or name in ELSEWHERE.get(self.room, ())

    def mutants(self) -> Iterator[Mutant]:
        """Every fault that fits into the room."""
        for file in sorted((self.folder / ROOMS[self.room]).rglob("*.py")):
            yield from mutants(file.relative_to(self.folder), self.folder)

    def learn(self) -> None:
        """How long each test takes and what it calls, where it is not known of the same code; all must pass without a fault."""
        kept = LEARNED / f"{self.room}.json"
        code = self._digest(
            name
            for name in self._names
            if name.endswith(".py") and name not in self.tests and Path(name).name != Path(__file__).name
        )
        before: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"code": ""}
        lessons = {
            name: Lesson(*lesson)
            for name, lesson in before.get("lessons", {}).items()
            if before["code"] == code and name in self.tests and lesson[0] == self._digest([name])
        }
        unknown = [name for name in self.tests if name not in lessons]
        self.slow_s = before.get("slow_s", 0.0)
        if unknown:
            lessons |= self._learned(unknown)
            slow = self._run(self.tests, {}, limit_s=None, marked=SLOW)
            self._all_passed(slow.failed)
            self.slow_s = sum(slow.seconds.values())
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"code": code, "lessons": lessons, "slow_s": self.slow_s}))
        for lesson in lessons.values():
            self.seconds |= lesson.seconds
            self.at_import.update(lesson.calls.pop(AT_IMPORT, None) or ())
            self.calls |= lesson.calls

    def _learned(self, files: Sequence[str]) -> dict[str, Lesson]:
        seconds, failed, calls = self._run(files, {}, limit_s=None)
        self._all_passed(failed)
        of = {file: [test for test in seconds if test.partition("::")[0] == file] for file in files}
        return {
            file: Lesson(
                self._digest([file]),
                {test: seconds[test] for test in tests},
                {test: calls.get(test, []) for test in [*tests, AT_IMPORT]},
            )
            for file, tests in of.items()
        }

    def _all_passed(self, failed: Sequence[str]) -> None:
        if failed:
            sys.exit(f"These fail without any fault: {' '.join(failed)}. Mend them first.")

    def _digest(self, names: Iterable[str]) -> str:
        return hashlib.sha256(b"".join((self.folder / name).read_bytes() for name in names)).hexdigest()

    def noticed_by(self, mutant: Mutant, warm: "Warm") -> list[str]:
        """The test that fails or hangs with the fault."""
        place = self.folder / mutant.path
        compiled = Path(importlib.util.cache_from_source(str(place)))
        place.write_bytes(mutant.source())
        compiled.unlink(missing_ok=True)
        try:
            failed = next(filter(None, self._asked(mutant, warm)), [])
        finally:
            place.write_bytes(mutant.original)
            compiled.unlink(missing_ok=True)
        self.noticed.update(failed)
        return failed

    def _asked(self, mutant: Mutant, warm: "Warm") -> Iterator[list[str]]:
        """What fails of the tests that can notice it: in a fork that has them loaded, unless the fault runs at an import; then of all slow ones."""
        first, later = self._likely_first(mutant)
        outcome = None if self._runs_at_import(mutant) else warm.ask({**first, **later}, mutant)
        if outcome is not None:
            yield outcome.failed
        else:
            for seconds in filter(None, (first, later)):
                files = sorted({test.partition("::")[0] for test in seconds})
                yield self._run(files, seconds, limit_s=_limit_s(seconds)).failed
        yield self._run(self.tests, {}, limit_s=_limit_s({SLOW: self.slow_s}), marked=SLOW).failed

    def _likely_first(self, mutant: Mutant) -> list[dict[str, float]]:
        """The tests that can notice it, those first that speak of it, notice much and are quick, while there is patience."""
        speaking = self._speaking_of(mutant)
        able = [test for test in self.seconds if self._can_notice(test, mutant)]
        able.sort(key=lambda test: self.seconds[test] - self.noticed[test])
        able.sort(key=lambda test: test.partition("::")[0] not in speaking)
        spent_s = itertools.accumulate(self.seconds[test] for test in able)
        asked = [test for test, until_s in zip(able, spent_s, strict=True) if until_s <= self.patience_s]
        return [
            {test: self.seconds[test] for test in asked if (test.partition("::")[0] in speaking) is near}
            for near in (True, False)
        ]

    def _speaking_of(self, mutant: Mutant) -> set[str]:
        """Files of tests that name the module or something that it defines."""
        body = ast.parse(mutant.original).body
        defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        words = re.compile(rf"\b({'|'.join(defined | {mutant.path.stem})})\b")
        return {file for file in self.tests if words.search((self.folder / file).read_text())}

    def _runs_at_import(self, mutant: Mutant) -> bool:
        return mutant.function is None or f"{mutant.path}:{mutant.function}" in self.at_import

    def _can_notice(self, test: str, mutant: Mutant) -> bool:
        """Not where it never calls the function: only what runs at an import, and in other processes, is everybody's."""
        calls = self.calls[test]
        everybodys = calls is None or self._runs_at_import(mutant)
        return everybodys or f"{mutant.path}:{mutant.function}" in (calls or ())

    def _run(
        self, files: Sequence[str], seconds: dict[str, float], *, limit_s: float | None, marked: str = FAST
    ) -> Outcome:
        """Run the tests in this order up to the first that fails; without an order, all of the files, the fast ones to learn."""
        order, outcome = self.folder / "order.json", self.folder / "outcome.json"
        order.write_text(json.dumps(seconds))
        outcome.unlink(missing_ok=True)
        process = self.start(files, marked=marked)
        with suppress(subprocess.TimeoutExpired):
            try:
                process.wait(limit_s)
            finally:
                kill_all_of(process.pid)
                process.wait()
        return self.outcome(process.returncode)

    def start(
        self, files: Sequence[str], *, marked: str = FAST, pass_fds: Sequence[int] = (), **environment: str
    ) -> "subprocess.Popen[bytes]":
        """pytest with these files of the copy, in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *PYTEST, "-m", marked, *files],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{self.folder}:{self.folder / 'events'}", **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=pass_fds,
        )

    def outcome(self, status: int) -> Outcome:
        """What the run that ended with this status has left."""
        left = self.folder / "outcome.json"
        if left.exists():
            outcome = Outcome(*json.loads(left.read_text()))
            # a KeyboardInterrupt ends the tests, and none of them fails
            if outcome.failed or not status:
                return outcome
        return Outcome({}, [f"(pytest ended with {status})"], {})


def _limit_s(seconds: dict[str, float]) -> float:
    return 120 + 20 * sum(seconds.values())


def kill_all_of(session: int) -> None:
    """A process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


class Warm:
    """A pytest that has loaded every test of the room; for each fault a fork of it takes over the changed code and runs."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._orders, theirs = multiprocessing.Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self._process = copy.start(
                copy.tests,
                pass_fds=[descriptor],
                # what tests leave behind, since the forks of a process have one folder for it
                PYTEST_DEBUG_TEMPROOT=str(copy.folder),
                **{ORDERS: str(descriptor)},
            )
        # until then it reads the files, which must be without a fault
        self._orders.recv()

    def ask(self, seconds: dict[str, float], mutant: Mutant) -> Outcome | None:
        """Run the tests in this order with the code that the file has now; None where it cannot be put in."""
        if not seconds:
            return Outcome({}, [], {})
        (self._copy.folder / "outcome.json").unlink(missing_ok=True)
        self._orders.send((seconds, str(mutant.path), mutant.original))
        fork = self._orders.recv()
        if not self._orders.poll(_limit_s(seconds)):
            kill_all_of(fork)
        status = self._orders.recv()
        kill_all_of(fork)
        for left in self._copy.folder.glob("pytest-of-*"):
            shutil.rmtree(left, ignore_errors=True)
        return None if status == NOT_PUT_IN else self._copy.outcome(status)

    def close(self) -> None:
        """Let it end."""
        self._orders.send(None)
        self._process.wait()


def put_in(path: str, original: bytes) -> bool:
    """Give the loaded functions of a file the code that the file has now; False where that is not possible."""
    before, after = (_codes(compile(source, path, "exec")) for source in (original, Path(path).read_bytes()))
    changed = {
        code: now
        for name in before.keys() & after.keys()
        for code, now in zip(before[name], after[name], strict=False)
        if code != now
    }
    place = str(Path.cwd() / path)
    loaded = [
        each for each in gc.get_objects() if type(each) is FunctionType and each.__code__.co_filename == place
    ]
    faulty = [function for function in loaded if function.__code__ in changed]
    # one that has been made already holds the variables that it closes over
    if any(changed[each.__code__].co_freevars != each.__code__.co_freevars for each in faulty):
        return False
    for function in faulty:
        function.__code__ = changed[function.__code__].replace(co_filename=place)
    return bool(faulty) or not loaded


def agree_on_tables() -> None:
    """Tables bear a digest of the sources, which was found before they changed; every process that a test starts finds the new one."""
    versions, database = map(
        sys.modules.get, ("llem.projections.tables_version", "llem.projections.database")
    )
    if versions is not None and database is not None:
        vars(versions)["tables_version"].cache_clear()
        vars(database)["VERSION"] = vars(versions)["tables_version"]()


def _codes(module: CodeType) -> dict[str, list[CodeType]]:
    """The codes of a module by their names, those of the same name in their order."""
    found: dict[str, list[CodeType]] = {}
    waiting = [module]
    while waiting:
        code = waiting.pop()
        found.setdefault(code.co_qualname, []).append(code)
        waiting += [constant for constant in reversed(code.co_consts) if isinstance(constant, CodeType)]
    return found


class Called(NamedTuple):
    """Functions by file and first line, and whether a process was started, which calls nobody knows what."""

    functions: frozenset[str] = frozenset()
    starts_process: bool = False

    def joined(self, *others: Self) -> Self:
        every = (self, *others)
        return type(self)(
            frozenset().union(*(each.functions for each in every)),
            any(each.starts_process for each in every),
        )


class Calls:
    """The plugin of pytest that sees what each test calls, with its fixtures, whoever had them set up."""

    def __init__(self) -> None:
        self._codes: dict[int, CodeType] = {}
        self._starts_process = False
        self._by_test = Called()
        self._by_fixtures: defaultdict[str, Called] = defaultdict(Called)
        self.of: dict[str, list[str] | None] = {}
        sys.addaudithook(self._heard)
        threading.settrace(self._entered)
        sys.settrace(self._entered)

    def _entered(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        self._codes[id(code)] = code

    def _heard(self, event: str, arguments: object) -> None:
        if event in STARTS_PROCESS:
            self._starts_process = True

    def _taken(self) -> Called:
        """What was called since this was last asked."""
        codes, starts_process = list(self._codes.values()), self._starts_process
        self._codes, self._starts_process = {}, False
        start = f"{Path.cwd()}/"
        functions = frozenset(
            f"{code.co_filename.removeprefix(start)}:{code.co_firstlineno}"
            for code in codes
            if code.co_filename.startswith(start)
        )
        return Called(functions, starts_process or any(name.startswith(FORKED) for name in functions))

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[object]:
        collected = yield
        self.of[AT_IMPORT] = sorted(self._taken().functions)
        return collected

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: "pytest.FixtureDef[object]") -> Iterator[object]:
        self._by_test = self._by_test.joined(self._taken())
        made = yield
        self._by_fixtures[fixturedef.argname] = self._by_fixtures[fixturedef.argname].joined(self._taken())
        return made

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[object]:
        ran = yield
        fixtures = (self._by_fixtures[name] for name in item.fixturenames)
        called = self._by_test.joined(self._taken(), *fixtures)
        self.of[item.nodeid] = None if called.starts_process else sorted(called.functions)
        self._by_test = Called()
        return ran


class Tests:
    """The plugin of pytest that asks the tests in an order and says which failed, and once what each calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self.calls: dict[str, list[str] | None] = {}
        # What fails need not be made small, and the same examples are drawn for each fault.
        settings.register_profile(
            "mutants", phases=[Phase.explicit, Phase.generate], database=None, derandomize=True
        )
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if ORDERS not in os.environ:
            expected_s = json.loads(Path("order.json").read_text())
            self.put_in_order(items, expected_s)
            limit(items, expected_s)

    def put_in_order(self, items: list[pytest.Item], expected_s: dict[str, float]) -> None:
        """Leave those that are asked, in the order in which they are."""
        if expected_s:
            rank = {test: number for number, test in enumerate(expected_s)}
            asked = (item for item in items if item.nodeid in rank)
            items[:] = sorted(asked, key=lambda item: rank[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[object]:
        began_s = _processor_s()
        ran = yield
        self.seconds[item.nodeid] = _processor_s() - began_s
        return ran

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed += [report.nodeid] if report.failed else []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.failed += [report.nodeid] if report.failed else []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run the tests as ever; in the process that Warm starts, in a fork for each order."""
        if ORDERS not in os.environ:
            return None
        orders = Connection(int(os.environ.pop(ORDERS)))
        orders.send("loaded")
        for expected_s, path, original in iter(orders.recv, None):
            fork = os.fork()
            if not fork:
                os.setsid()
                orders.close()
                if not put_in(path, original):
                    os._exit(NOT_PUT_IN)
                agree_on_tables()
                self.put_in_order(session.items, expected_s)
                limit(session.items, expected_s)
                return None
            orders.send(fork)
            orders.send(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]))
        return True

    def pytest_sessionfinish(self) -> None:
        Path("outcome.json").write_text(json.dumps([self.seconds, self.failed, self.calls]))


def limit(items: Iterable[pytest.Item], expected_s: dict[str, float]) -> None:
    """What takes much longer than without a fault hangs; the machine may be busy with something else."""
    for item in items:
        item.add_marker(pytest.mark.timeout(30 + 20 * expected_s.get(item.nodeid, 60)))


def _processor_s() -> float:
    """Of this process, and of those that it started and waited for: a busy machine does not change it."""
    return sum(os.times()[:4])


def pytest_configure(config: pytest.Config) -> None:
    """Loaded as a plugin by the tests of a fault."""
    config.pluginmanager.register(tests := Tests())
    is_asked = ORDERS in os.environ or config.option.markexpr == SLOW
    if not is_asked and not json.loads(Path("order.json").read_text()):
        config.pluginmanager.register(calls := Calls())
        tests.calls = calls.of


def main() -> None:
    """Draw the faults, try each, and print those that no test noticed."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder), options.room, options.patience)
        possible = [mutant for mutant in copy.mutants() if options.only in str(mutant.path)]
        drawn = random.Random(options.seed).sample(possible, min(options.count, len(possible)))
        copy.learn()
        with closing(Warm(copy)) as warm:
            counts = Counter(_outcome(copy, mutant, warm) for mutant in drawn)
    print(
        f"{options.room}, seed {options.seed}: of {len(drawn)} faults, {counts['noticed']} noticed, "
        f"{counts['cannot matter']} cannot matter, {counts['survived']} survived"
    )


def _outcome(copy: Copy, mutant: Mutant, warm: Warm) -> str:
    failed = copy.noticed_by(mutant, warm)
    if failed:
        outcome = "noticed"
    else:
        outcome = "cannot matter" if mutant.diff() in LOOKED_AT.read_text() else "survived"
    print(f"{outcome}: {mutant.path}:{mutant.line}", *failed, flush=True)
    if outcome == "survived":
        print(mutant.diff(), flush=True)
    return outcome


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--room", choices=ROOMS, required=True)
    parser.add_argument("--only", default="", help="only in files whose path holds this")
    parser.add_argument("--count", type=int, default=70)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--patience",
        type=float,
        default=math.inf,
        help="ask for each fault only tests of so many processor seconds",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
