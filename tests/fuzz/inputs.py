"""Odd inputs drawn from a seed: texts, command lines, SQL, prompt files, imports and plans."""

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from llem.cli import COMMANDS

NUMBERS = [
    "0",
    "-1",
    "1",
    "7",
    "1e400",
    "-inf",
    "inf",
    "nan",
    "9" * 30,
    "1" * 5000,
    "0x10",
    "1_000",
    "٣",
    "1e-300",
]
ODD = [
    "", " ", "\n", "\t", "\x1b[31m", "\x7f", "\u202e", "\udcff", "é", "\U0001d518", "a" * 300, "a" * 70_000, "[" * 3000,
    "{" * 3000, "'", '"', "\\", "$x", "%s", "{}", "--", "-", "=", "a=b", "@last", "@first", "*", "null", "true",
    "../x", "~", "a.b.c", ".", "..", "x.csv", "x.parquet", "x.json", "con", "1.5:2", "5:1", "3d", "2026-13-45", "0,1",
]  # fmt: skip


class Odd(random.Random):
    """Draws odd things; the same seed draws the same ones."""

    def text(self) -> str:
        kind = self.randrange(5)
        if kind == 0:
            return self.choice(ODD)
        if kind == 1:
            return self.choice(NUMBERS)
        if kind == 2:
            return "".join(self.choice(ODD)[:20] for _ in range(self.randrange(4)))
        alphabet = "ab01 .,:;=-_'\"[]{}()<>\\|&$#@!?*%é\u2028\udc80"
        return "".join(self.choice(alphabet) for _ in range(self.randrange(12)))

    def mutated(self, content: bytes) -> bytes:
        """The bytes with a few of them changed, cut, doubled, or with something odd put in."""
        changed = bytearray(content)
        for _ in range(self.randrange(4)):
            at = self.randrange(len(changed) + 1)
            until = min(len(changed), at + self.choice([1, 4, 40, 4000]))
            match self.randrange(5):
                case 0:
                    changed[at:until] = bytes(self.randrange(256) for _ in range(until - at))
                case 1:
                    del changed[at:until]
                case 2:
                    changed[at:at] = changed[at:until]
                case 3:
                    changed[at:at] = self.text().encode(errors="surrogateescape")
                case _:
                    del changed[until:]
        return bytes(changed)

    def value(self, depth: int = 0) -> Any:
        """Something that JSON can hold."""
        kinds: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self.choice([True, False]),
            lambda: self.choice([0, -1, 1, 2**31, 2**63, -(2**70), 10**400]),
            lambda: self.choice([0.0, -0.5, 1e308, 5e-324, float("nan"), float("inf"), -float("inf")]),
            lambda: self.text(),
        ]
        if depth < 3:
            kinds += [
                lambda: [self.value(depth + 1) for _ in range(self.randrange(4))],
                lambda: {self.text(): self.value(depth + 1) for _ in range(self.randrange(4))},
            ]
        return self.choice(kinds)()

    def altered(self, content: Any, *, chance: float) -> Any:
        """The same structure, in which a few values are others, missing or doubled."""
        if self.random() < chance:
            return self.value()
        if isinstance(content, dict):
            kept = {name: inner for name, inner in content.items() if self.random() > chance / 3}
            return {name: self.altered(inner, chance=chance) for name, inner in kept.items()}
        if isinstance(content, list):
            return [
                self.altered(inner, chance=chance)
                for inner in content
                for _ in range(self.choice([1] * 9 + [2]))
            ]
        return content


@dataclass(frozen=True)
class Command:
    """A command with the options it has, those that take a value with the values they name."""

    words: tuple[str, ...]
    flags: tuple[str, ...]
    options: dict[str, tuple[str, ...]]


# They never end, or do what they are told to any file; the doctor looks at the machine alone.
_LEFT_OUT = frozenset({"--yes", "--follow", "--unsafe", "--help"})
_MACHINE = frozenset({"doctor"})
_MEASURING = frozenset({"measure", "calibrate"})


_OPTION = re.compile(r"^  (?:-\w, )?(--[\w-]+)(?: (\S.*?))?(?:  .*)?$", re.MULTILINE)
_SUBCOMMAND = re.compile(r"^  ([a-z]+)  ", re.MULTILINE)


def commands(help_of: Callable[..., str]) -> list[Command]:
    """Every command that reads files or a store, with every option that its help names."""
    words = [(name,) for name in COMMANDS if name not in _MACHINE | {"log"}]
    words += [("log", name) for name in _SUBCOMMAND.findall(help_of("log").partition("Commands:")[2])]
    return [_command(each, help_of(*each)) for each in words]


def _command(words: tuple[str, ...], shown: str) -> Command:
    named = {name: values for name, values in _OPTION.findall(shown) if name not in _LEFT_OUT}
    return Command(
        words=(*words, "--dry-run") if words[0] in _MEASURING else words,
        flags=tuple(name for name, values in named.items() if not values),
        options={name: tuple(values.strip("<>[]").split("|")) for name, values in named.items() if values},
    )


_HINTS = {
    "--set": (
        "engine.batch_size=3",
        "labels.a=b",
        "workload.path=x",
        "a.b.c=[1,2]",
        "generation.top_k=5",
        "model.load.x=1",
    ),
    "--type": ("samples_taken", "experiment_started"),
    "--label": ("a=b", "a=", "a.b=c"),
    "--format": ("csv", "json"),
}


def command_line(odd: Odd, paths: Sequence[str], known: Sequence[Command]) -> list[str]:
    """A command with some of its options, and values that may or may not fit."""
    command = odd.choice(known)
    arguments = list(command.words)
    for flag in command.flags:
        if odd.random() < 0.15:
            arguments.append(flag)
    for option, choices in command.options.items():
        if odd.random() < 0.15:
            arguments += [
                option,
                odd.choice([*choices, *_HINTS.get(option, ()), odd.choice(paths), odd.text()]),
            ]
    for _ in range(odd.choice([0, 1, 1, 1, 2])):
        arguments.append(odd.choice([odd.text(), odd.choice(paths), "@last"]))
    if command.words[:1] == ("query",):
        arguments += ["--timeout", "5"]
    if command.words[0] not in _MEASURING and odd.random() < 0.3:
        arguments = [odd.choice(arguments) if odd.random() < 0.1 else argument for argument in arguments]
    # what is absolute and not ours could be written to
    return [argument for argument in arguments if argument in paths or not argument.startswith(("/", "~"))]


_TABLES = [
    "experiments",
    "requests",
    "samples",
    "experiment_results",
    "windows",
    "warnings",
    "events",
    "nothing",
    "power_over_time",
]
_PIECES = [
    "select", "*", "from", "where", "group by all", "order by 1", "limit 3", "(", ")", ",", "count(*)", "1/0", "null", "union",
    "with a as (select 1)", "join", "using (experiment_id)", "'text'", '"name"', "$x", "range(10000000000)", "unnest([1,2])", ";",
    "read_csv('/etc/passwd')", "getenv('HOME')", "pivot", "insert into", "drop table", "attach 'x'", "copy", "pragma", "set", "--",
    "/*", "::INTEGER", "1e999", "99999999999999999999999999999999999999999", "date '2026-01-01'", "interval 1 year", "now()", "{'a': 1}",
    "[1,[2]]", "map {1: 2}", "x'ff'", "'\\x00'::BLOB", "recursive", "explain", "describe", "summarize", "show tables", "as time_ns",
    "uuid()", "'1'::BIT", "1::HUGEINT", "'a'::ENUM('a')", "infinity", "'nan'::DOUBLE", "timestamptz '2026-01-01'", "time '25:00'",
]  # fmt: skip
_EXPRESSIONS = [
    "i", "null", "$x", "now()", "current_date", "uuid()", "interval 1 month", "[1, null]", "{'a': {'b': [1.5]}}", "map {1: 2, 2: 3}",
    "map {[1]: {'a': 1}}", "'x'::BLOB", "'101'::BIT", "170141183460469231731687303715884105727::HUGEINT", "1.1::DECIMAL(38, 10)",
    "340282366920938463463374607431768211455::UHUGEINT", "'nan'::DOUBLE", "'-infinity'::FLOAT", "'infinity'::DATE", "'-infinity'::TIMESTAMP",
    "date '0044-01-01 (BC)'", "timestamp '294246-01-01'", "timestamptz '2026-01-01 00:00+02'", "time '24:00:00'", "'10:00+02'::TIMETZ",
    "timestamp_ns '2026-01-01 00:00:00.123456789'", "'a'::ENUM('a', 'b')", "array_value(1, 2, 3)", "union_value(n := 1)", "chr(0)", "chr(27)",
    "chr(8238)", "repeat('x', 5000)", "'=1+1'", "json('{\"a\": 1e999}')", "json('[' || repeat('[', 500) || repeat(']', 501))", "1/0", "0.0/0",
    "range(100000)", "row(1, 'a')", "typeof(i)", "'\u0000'", "i as i", "hash(i)", "(select 1)", "struct_pack(\"\" := 1)", "'2 years 3 days'::INTERVAL",
]  # fmt: skip
_QUERIES = [
    "select * from experiment_results",
    "select now(), current_date, uuid(), interval 1 month, [1, null], {'a': 'b'}, 'x'::BLOB",
    "select * from requests limit 3",
    "with recursive r as (select 1 n union all select n + 1 from r) select sum(n) from r",
    "from events limit 5",
    "select repeat('x', 1000000)",
    "select 'infinity'::DOUBLE, 'nan'::DOUBLE, 170141183460469231731687303715884105727::HUGEINT",
    "describe samples",
    "select * from generate_series(1, 3) t(a), generate_series(1, 3) u(a)",
]


def sql(odd: Odd) -> str:
    """A statement, a few pieces of one, or neither."""
    match odd.randrange(6):
        case 0:
            return " ".join(odd.choice([*_PIECES, *_TABLES]) for _ in range(odd.randrange(1, 12)))
        case 1:
            return f"select {odd.choice(_PIECES)} from {odd.choice(_TABLES)} {odd.choice(_PIECES)}"
        case 2:
            return f"select {', '.join(odd.choice(_EXPRESSIONS) for _ in range(odd.randrange(1, 5)))} from range(2) t(i)"
        case 3:
            return odd.choice(_QUERIES)
        case 4:
            return odd.mutated(odd.choice(_QUERIES).encode()).decode(errors="replace")
        case _:
            return odd.text()


_PROMPTS: list[bytes] = [
    b'{"prompt": "Hello", "max_tokens": 7}\n{"text": "there"}\n',
    b'[{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}]',
    b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "max_completion_tokens": 3}\n',
    b'[\n{"instruction": "Add", "input": "1 2", "output": "3"}\n]\n',
    b'prompt,max_tokens\n"Hello, world",7\n"two\nlines",9\n',
    b"text;id\nHello;1\n",
    b"one\ntwo\n\nthree\n",
    b'{"body": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}}',
]


def prompt_file(odd: Odd) -> bytes:
    """A prompt file, changed before or after it was compressed and encoded."""
    content = odd.choice(
        [*_PROMPTS, json.dumps(odd.value()).encode(), odd.text().encode(errors="surrogateescape")]
    )
    content = odd.mutated(content)
    match odd.randrange(6):
        case 0:
            return odd.mutated(gzip.compress(content))
        case 1:
            return odd.mutated(zstandard.compress(content))
        case 2:
            return odd.mutated(
                content.decode(errors="replace").encode(
                    odd.choice(["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
                )
            )
    return content


def imported_file(odd: Odd, original: Path) -> bytes:
    """A result of the predecessor in which something is odd."""
    content = json.loads(original.read_text())
    if odd.random() < 0.2:
        return odd.mutated(original.read_bytes())
    return json.dumps(odd.altered(content, chance=odd.choice([0.003, 0.02, 0.1]))).encode()


def odd_file(odd: Odd, original: bytes) -> bytes:
    """A file of any format in which something is odd: a value of its JSON, a cell of its lines, or its bytes."""
    try:
        content = json.loads(original)
    except ValueError:
        return odd.mutated(original) if odd.random() < 0.3 else _odd_cells(odd, original)
    if odd.random() < 0.2:
        return odd.mutated(original)
    return json.dumps(odd.altered(content, chance=odd.choice([0.001, 0.01, 0.1]))).encode()


def _odd_cells(odd: Odd, original: bytes) -> bytes:
    parts = re.split(r"([,\s:\[\]{}]+)", original.decode(errors="replace"))
    for _ in range(odd.randrange(1, 4)):
        parts[odd.randrange(len(parts))] = odd.text()
    return "".join(parts).encode(errors="surrogateescape")


def plan_file(odd: Odd, usual: str) -> bytes:
    """The whole default plan with a few values changed, or TOML of a few keys."""
    lines = usual.splitlines()
    if odd.random() < 0.5:
        for _ in range(odd.randrange(1, 4)):
            at = odd.randrange(len(lines))
            key, equals, _ = lines[at].removeprefix("# ").partition(" = ")
            if equals:
                lines[at] = f"{key} = {toml(odd)}"
        return "\n".join(lines).encode(errors="surrogateescape")
    return odd.mutated(usual.encode())


_SETTINGS = {
    "engine.batch_size": ["1", "3", "1000", "2147483647"],
    "engine.simulated.prefill_ms": ["0", "1e-9", "5"],
    "engine.simulated.token_ms": ["0", "1e-9", "1"],
    "engine.simulated.jitter": ["0", "1"],
    "engine.simulated.fail_requests": ["[0]", "[0, 1, 2, 3, 4, 5, 6, 7]", "[9223372036854775807]"],
    "engine.simulated.crash_after_batches": ["1", "2", "3"],
    "workload.requests": ["1", "5", "1000"],
    "workload.output_tokens.kind": ["uniform", "lognormal"],
    "workload.output_tokens.mean": ["1", "2"],
    "workload.output_tokens.max": ["1", "5"],
    "workload.input_tokens.mean": ["1", "100000"],
    "workload.input_tokens.spread": ["0", "1"],
    "workload.seed": ["0", "9223372036854775807"],
    "workload.record_text": ["true"],
    "generation.seed": ["0", "9223372036854775807"],
    "meter.sample_hz": ["0.001", "100", "50"],
    "meter.simulated.curve": [
        "constant",
        "square",
        "ramp",
        "[[0, 0.0], [0.001, 1e9]]",
        "[[0, 5.0]]",
        "[]",
        "[[1, 2.0]]",
    ],
    "meter.simulated.power_w": ["1e-300", "1e9"],
    "meter.simulated.period_s": ["0.001", "31622400"],
    "meter.simulated.counter_tick_ms": ["0", "1e-9", "31622400"],
    "meter.estimate_watts_per_core": ["1e-300", "1e9"],
    "windows.warmup_cv": ["1e-300", "inf"],
    "windows.warmup_max_s": ["0.01"],
    "windows.cooldown_max_s": ["0"],
    "validity.min_duration_s": ["0", "inf"],
    "validity.min_samples": ["1"],
    "validity.max_sample_gap_s": ["1e-300", "inf"],
    "validity.steady_state_min_s": ["1e-300", "0.1", "inf"],
    "validity.steady_state_tolerance": ["1e-300", "inf"],
    "devices.workers": ["1", "2"],
    "log.sync": ["block", "close"],
    "name": ['""', "x", '"\\u0000\\u001b[31m"'],
    "labels.a": ['""', '"\\u202e"'],
}


def settings(odd: Odd) -> list[str]:
    """A few settings at the ends of what the plan takes, of what is simulated."""
    keys = odd.sample(sorted(_SETTINGS), odd.randrange(1, 7))
    return [word for key in keys for word in ("--set", f"{key}={odd.choice(_SETTINGS[key])}")]


def toml(odd: Odd) -> str:
    """A value of TOML, or what only looks like one."""
    return odd.choice(
        [
            *(
                "1",
                "-1",
                "0",
                "1e400",
                "inf",
                "nan",
                "-inf",
                "true",
                '"x"',
                '""',
                "[]",
                "[[1.0, 2.0]]",
                "{}",
                "{a = 1}",
            ),
            *(
                "2026-01-01",
                "10:00:00",
                "9" * 25,
                "1" * 5000,
                "[" * 2000,
                '"' + "x" * 5000 + '"',
                '"\\u0000"',
                '"\\u202e"',
            ),
            *(
                '["a", 1]',
                "[[0, 1], [0, 2]]",
                "[nan]",
                '{a = {b = [1, "x", 2026-01-01]}}',
                "0x10",
                "1_000",
                '"simulated"',
            ),
            json.dumps(odd.text()),
        ]
    )
