"""Plans from files and options: TOML, YAML or JSON, then `--set` and options over it; errors have the key's path."""

import hashlib
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import structs

from llem.errors import PlanError, in_words, nearest
from llem.plan import LoadPlan, MeterPlan, OwnGenerationPlan, Plan, Section
from llem.registry import METERS
from llem_events.secrets import scrub, scrub_value

Table = dict[str, Any]
SectionT = TypeVar("SectionT", bound=Section)
_LOAD_KEYS = {"closed": "concurrency", "open": "rate", "trace": "trace"}
_KINDS_OF_LOAD = {
    "concurrency": ("closed",),
    "rate": ("open",),
    "arrival": ("open",),
    "burstiness": ("open",),
    "max_concurrency": ("open", "trace"),
    "ramp_s": ("closed", "open"),
    "trace": ("trace",),
    "time_scale": ("trace",),
}
MAX_FILE_BYTES = 2**20
MAX_YAML_PARTS = 100_000
MAX_SHOWN_CHARACTERS = 60
_WHERE_OTHERS_STAND = (
    "a model stands behind --model, a program behind --, as in: llem measure -- python3 train.py"
)
_OF_SERVERS = ("server", "load")  # parts that say nothing without a server
_NOT_MEASURED = ("name", "labels", "log", "validity")  # parts of a plan that do not change what is measured


def resolve_plan(path: Path | None, *, options: Mapping[str, object], settings: Sequence[str] = ()) -> Plan:
    """The plan in `path`, then `settings` ("a.b=value"), then `options` (dotted key -> value, None where not given).

    Raises PlanError naming the key, what was found and what was expected.
    """
    table = {} if path is None else read_table(path, hint=_WHERE_OTHERS_STAND)
    for key, value in map(key_and_value, settings):
        assign(table, key, value)
    for key, value in options.items():
        if value is not None:
            assign(table, key, value)
    return convert(table)


def convert(table: Table) -> Plan:
    """A plan from plain tables. Raises PlanError."""
    if "decoding" in table:
        raise _renamed(table["decoding"])
    if "study" in table:
        raise PlanError("plan key study", found="a plan of several runs", hint="llem study measures them")
    _check_keys(table, Plan, "")
    try:
        plan = msgspec.convert(_with_server_kind(_with_load_kind(_with_source(table))), Plan)
        msgspec.convert({"generation": _own_keys(plan)}, _Owned)
        _check_load(plan.load)
        _check_pauses(plan)
        _check_meters(plan.meter)
        return plan
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        raise _unfit(place.rstrip("`"), text, table) from None


def _check_meters(plan: MeterPlan) -> None:
    """Raises PlanError for meters that cannot be read together: what two of them see would count twice."""
    if not plan.also:
        return
    written = ",".join(plan.names)
    if plan.name == "auto":
        raise PlanError(
            "plan key meter.also",
            found=f"auto with {', '.join(plan.also)}",
            expected="a first meter by its name",
        )
    for one, other in combinations(plan.names, 2):
        if one == other:
            raise PlanError("plan key meter.also", found=f"{one} twice", expected="each meter once")
        if (METERS[one].gpus is None) == (METERS[other].gpus is None):
            what = "the CPU" if METERS[one].gpus is None else "GPUs"
            raise PlanError(
                "plan key meter.also",
                found=f"{written}: {one} and {other} both read {what}",
                expected="at most one meter of GPUs and one of the CPU, such as nvml,rapl",
            )


def _unfit(key: str, text: str, table: Table) -> PlanError:
    """msgspec's sentence about a key of the plan."""
    allowed = literal_values(_kind(re.sub(r"\[\d+\]$", "", key)))
    return _misfit(key or "(top)", text, _scalar(table, key), allowed, whole=_table_of(key))


def _misfit(
    key: str, text: str, value: str | None, allowed: Sequence[str], *, whole: str | None = None
) -> PlanError:
    """msgspec's sentence as found and expected, with the value found and the values allowed, or what a `whole` table of them is."""
    text = in_words(text)
    found, expected, hint = value or text[0].lower() + text[1:], whole, None
    if match := re.fullmatch(r"Expected (.*?)(?:, got (.*))?", text):
        found, expected = value or match[2], whole or match[1]
    elif match := re.fullmatch(r"Invalid enum value (.*)", text):
        found, hint = match[1], nearest(match[1].strip("'"), allowed)
    if allowed:
        expected = f"one of {', '.join(allowed)}"
    return PlanError(f"plan key {key}", found=found, expected=expected, hint=hint)


def _kind(key: str) -> Any:
    """The type that a key has in the plan; None where there is no such key."""
    kind: Any = Plan
    for name in key.split("."):
        section = section_of(kind)
        kind = (
            next((field.type for field in structs.fields(section) if field.name == name), None)
            if section
            else None
        )
    return kind


def _table_of(key: str) -> str | None:
    """The keys below a key, where it is a table of some."""
    section = section_of(_kind(key))
    if section is None:
        return None
    names = [field.name for field in structs.fields(section)]
    return f"a table with {', '.join(names)}, such as {key}.{names[0]}"


def _scalar(table: Table, key: str) -> str | None:
    """The text, number or truth value that a plan has for a key, as it can be written; None for all else."""
    inner: object = table
    for name in key.split("."):
        inner = inner.get(name) if isinstance(inner, dict) else None
    if isinstance(inner, str):
        # before it is cut and quoted, after which a secret might not be known any more
        inner = scrub(inner)
    return repr(inner)[:MAX_SHOWN_CHARACTERS] if isinstance(inner, str | int | float) else None


def _with_source(table: Table) -> Table:
    """The same table, in which a path of prompts means the file."""
    workload = table.get("workload")
    if not isinstance(workload, dict) or workload.get("path") is None:
        return table
    if workload.get("source", "file") == "synthetic":
        raise PlanError(
            "plan key workload.source",
            found="synthetic, and workload.path",
            expected="'file', or no path",
        )
    return {**table, "workload": {"source": "file", **workload}}


def _with_load_kind(table: Table) -> Table:
    """The same table, in which a rate means an open loop, and a trace its times."""
    load = table.get("load")
    if not isinstance(load, dict) or "kind" in load:
        return table
    kinds = [kind for kind, key in _LOAD_KEYS.items() if load.get(key) is not None]
    if len(kinds) > 1:
        keys = " and ".join(f"load.{_LOAD_KEYS[kind]}" for kind in kinds)
        raise PlanError("plan key load", found=keys, expected="one of them")
    return {**table, "load": {**load, "kind": kinds[0]}} if kinds else table


def _check_load(load: LoadPlan) -> None:
    """What belongs to another kind of load is refused, because it would do nothing."""
    needed = {"open": "rate", "trace": "trace"}.get(load.kind)
    if needed is not None and getattr(load, needed) is None:
        raise PlanError(f"plan key load.{needed}", expected=f"a value, for load.kind = '{load.kind}'")
    changed = [key for key in _KINDS_OF_LOAD if getattr(load, key) != getattr(LoadPlan(), key)]
    for key in changed:
        if load.kind not in _KINDS_OF_LOAD[key]:
            expected = f"{' or '.join(_KINDS_OF_LOAD[key])}, to set load.{key}"
            raise PlanError("plan key load.kind", found=load.kind, expected=expected)
    if "burstiness" in changed and load.arrival != "gamma":
        raise PlanError("plan key load.arrival", found=load.arrival, expected="gamma, to set load.burstiness")


def _check_pauses(plan: Plan) -> None:
    """Raises PlanError for pauses between batches where there are none."""
    if plan.workload.shift_pauses_s and plan.is_served:
        raise PlanError(
            "plan key workload.shift_pauses_s",
            found="a server, which is sent requests and no batches",
            expected="no pauses",
            hint="load.arrival = 'poisson' sends requests at random times",
        )


def _with_server_kind(table: Table) -> Table:
    """The same table, in which the address of a server, or a command for one, means that kind."""
    server = table.get("server")
    if not isinstance(server, dict) or server.get("kind") is not None:
        return table
    kinds = [kind for kind in ("url", "command") if server.get(kind)]
    if len(kinds) > 1:
        raise PlanError("plan key server", found="a url and a command", expected="one of them")
    return {**table, "server": {**server, "kind": kinds[0]}} if kinds else table


def literal_values(kind: Any) -> list[str]:
    """The texts that a type allows, where it allows only some."""
    if get_origin(kind) is Literal:
        return [str(text) for text in get_args(kind)]
    return [text for inner in get_args(kind) for text in literal_values(inner)]


class _Owned(Section, frozen=True, kw_only=True):
    """The keys of `generation` that are checked here; the others are the engine's to check."""

    generation: OwnGenerationPlan


def _own_keys(plan: Plan) -> Table:
    return {key: plan.generation[key] for key in OwnGenerationPlan.__struct_fields__}


def _renamed(decoding: object) -> PlanError:
    """The section's old name, with the new name of the first key in it."""
    keys = list(decoding) if isinstance(decoding, dict) else []
    if not keys:
        return PlanError("unknown plan key decoding", hint="its keys are those of generation now")
    new = {"sample": "do_sample"}.get(keys[0], keys[0])
    hint = f"use generation.{new}: [generation] takes the names of transformers' GenerationConfig"
    return PlanError(f"unknown plan key decoding.{keys[0]}", hint=hint)


def config_hash(plan: Plan, command: Sequence[str] = ()) -> str:
    """SHA-256 of what is measured and how.

    Name, labels, log, thresholds of the verdict, the guard after the measurement, and the run that lent its baseline leave it unchanged.
    """
    plan = structs.replace(plan, windows=structs.replace(plan.windows, baseline_from=None, guard_s=None))
    left_out = _NOT_MEASURED if plan.is_served else (*_NOT_MEASURED, *_OF_SERVERS)
    table = {key: part for key, part in msgspec.to_builtins(plan).items() if key not in left_out}
    # plans had no such keys before
    del table["windows"]["guard_s"]
    if plan.engine.parallel == "none":
        del table["engine"]["parallel"]
    if not plan.meter.also:
        del table["meter"]["also"]
    if plan.workload.prefix.share == 0:
        del table["workload"]["prefix"]
    if not plan.workload.shift_pauses_s:
        del table["workload"]["shift_pauses_s"]
    for setting in ("power_limit_w", "lock_clocks_mhz"):
        if setting not in plan.devices.settings:
            del table["devices"][setting]
    measured = scrub_value([table, list(command)])  # a token that is renewed is no other configuration
    return hashlib.sha256(msgspec.json.encode(measured, order="sorted")).hexdigest()


def cell_hash(plan: Plan, command: Sequence[str] = ()) -> str:
    """The configuration's digest without the seeds that repeats may differ in."""
    workload = structs.replace(plan.workload, seed=0)
    generation = plan.generation | {"seed": 0}
    return config_hash(structs.replace(plan, workload=workload, generation=generation), command)


def path_of(text: str) -> Path:
    """A path of the plan; a ~ at its beginning is a home where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def read_table(path: Path, *, hint: str | None = None) -> Table:
    """The tables in a plan's file; `hint` says what else may stand in its place. Raises PlanError."""
    text = _text(path, hint)
    if path.suffix in (".yaml", ".yml"):
        return _parse_yaml(path, text)
    if path.suffix == ".json":
        return _parse_json(path, text)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"plan {path} is not TOML", found=error) from None


def _text(path: Path, hint: str | None) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise PlanError(f"plan {path} is too large", expected=f"at most {MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise PlanError(
            f"plan {path} cannot be read", found=error.strerror, expected="a TOML file", hint=hint
        ) from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
        raise PlanError(f"plan {path} cannot be read", found=reason, expected="a TOML file") from None


def _parse_json(path: Path, text: str) -> Table:
    try:
        return msgspec.json.decode(text, type=Table)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PlanError(f"plan {path} is not JSON", found=error, expected="a table of keys") from None


def _parse_yaml(path: Path, text: str) -> Table:
    if importlib.util.find_spec("yaml") is None:
        raise PlanError(
            f"plan {path} is YAML, and PyYAML is not installed",
            hint="pip install pyyaml, or write the plan as TOML",
        )
    yaml = importlib.import_module("yaml")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_parts(path, node)
        table = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PlanError(f"plan {path} is not YAML", found=" ".join(str(error).split())) from None
    if not isinstance(table, dict):
        raise PlanError(f"plan {path}", found=type(table).__name__, expected="a table of keys")
    return table


def _check_parts(path: Path, node: Any) -> None:
    """Raises PlanError for YAML whose aliases of aliases, written out, are a plan almost without end."""
    if node is not None and _parts_of(node, {}) > MAX_YAML_PARTS:
        raise PlanError(
            f"plan {path} is too large",
            expected=f"at most {MAX_YAML_PARTS} keys and values, those behind an alias counted as often as it stands there",
        )


def _parts_of(node: Any, known: dict[int, int]) -> int:
    """Keys and values in a node and below it, those behind an alias as often as they are named; too many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = MAX_YAML_PARTS + 1
        inner = node.value if node.id in ("sequence", "mapping") else []
        nodes = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_parts_of(part, known) for part in nodes)
    return known[id(node)]


def key_and_value(setting: str) -> tuple[str, object]:
    """What "a.b=value" sets. Raises PlanError."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise PlanError("--set", found=repr(setting), expected="key=value, such as engine.batch_size=8")
    return key.strip(), _parse_value(text.strip())


def _parse_value(text: str) -> object:
    """A TOML value where it is one, otherwise the text itself, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def assign(table: Table, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents, start=1):
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise PlanError(
                f"plan key {'.'.join(parents[:depth])}", found="a value", expected=f"a table, to set {key}"
            )
    table[last] = value


def plan_keys(section: type[Section] = Plan, place: str = "") -> Iterator[str]:
    """Every key of a plan that takes a value, by its full path."""
    for name, kind in _types_of(section).items():
        inner = section_of(kind)
        if inner is None:
            yield f"{place}{name}"
        else:
            yield from plan_keys(inner, f"{place}{name}.")


def _types_of(section: type[Section]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(section)}


def _check_keys(table: Table, section: type[Section], place: str) -> None:
    """Unknown keys by their full path, with the nearest known one."""
    known = _types_of(section)
    for key, value in table.items():
        path = f"{place}{key}"
        if key not in known:
            raise unknown_key(place, str(key), known)
        inner = section_of(known[key])
        if inner is not None and isinstance(value, dict):
            _check_keys(value, inner, f"{path}.")


def check_section(table: Table, section: type[SectionT], place: str) -> SectionT:
    """A section that is no part of the plan of one run, at `place` in its file. Raises PlanError."""
    _check_keys(table, section, f"{place}.")
    try:
        return msgspec.convert(table, section)
    except msgspec.ValidationError as error:
        text, _, inner = str(error).partition(" - at `$")
        key = inner.rstrip("`")
        name = key.removeprefix(".")
        allowed = literal_values(_types_of(section).get(name))
        raise _misfit(f"{place}{key}", text, _scalar(table, name), allowed) from None


def unknown_key(place: str, key: str, known: Collection[str]) -> PlanError:
    """The key by its full path, with the nearest known one, or all where none is near."""
    hint = nearest(key, known, place=place) or f"known here: {', '.join(known)}"
    return PlanError(f"unknown plan key {place}{key}", hint=hint)


def section_of(kind: Any) -> type[Section] | None:
    """The section that a key of this type is, if it is one."""
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
