"""A name of the registry is known everywhere: to the plan, the help, the docs, the packaging and the code that loads it."""

import importlib
import inspect
import re
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from llem.cli.reference import reference
from llem.engines import check_engine, create_engine
from llem.errors import MeterError, MissingExtraError, PlanError
from llem.export.formats import TEXT_FORMATS, Format
from llem.importers.asked import Asked
from llem.meters import create_meter, require_meter
from llem.meters.base import MeterModule, Vendor
from llem.plan import EnginePlan, MeterPlan, Plan
from llem.plan_file import resolve_plan
from llem.prompts import Prompt
from llem.registry import (
    ENGINES,
    IMPORTERS,
    METERS,
    SERVERS,
    EngineKind,
    MeterKind,
    install_hint,
    one_of,
    ranked_meters,
)

ROOT = Path(__file__).parents[1]
NAMES = [("meter.name", name) for name in METERS] + [("engine.name", name) for name in ENGINES]
NAMES += [("server.kind", name) for name in SERVERS]
DOCS = {"meter.name": "docs/accuracy.md", "engine.name": "docs/engines.md", "server.kind": "docs/serving.md"}
EXTRAS = {"meter.name": {name: kind.extra for name, kind in METERS.items()},
          "engine.name": {name: kind.extra for name, kind in ENGINES.items()},
          "server.kind": dict.fromkeys(SERVERS)}  # fmt: skip


@pytest.mark.parametrize(("key", "name"), NAMES)
def test_a_plan_can_name_it(key: str, name: str) -> None:
    """Each name is a value of its key."""
    plan = resolve_plan(None, options={key: name})
    assert name in (plan.meter.name, plan.engine.name, plan.server.kind)


@pytest.mark.parametrize(("key", "choices"), [("meter.name", ["auto", *METERS]), ("engine.name", [*ENGINES])])
def test_a_wrong_name_is_told_with_the_right_ones(key: str, choices: list[str]) -> None:
    """The error lists what the registry has."""
    with pytest.raises(PlanError) as caught:
        resolve_plan(None, options={key: "ghost"})
    assert caught.value.expected == f"one of {', '.join(choices)}"


def test_the_help_lists_them() -> None:
    """`llem measure --help` and the page of commands name every meter and engine."""
    page = " ".join(reference().split())
    assert one_of("auto", *METERS) in page
    assert one_of(*ENGINES) in page
    assert one_of(*SERVERS) in page


@pytest.mark.parametrize(("key", "name"), NAMES)
def test_the_docs_have_a_row_for_it(key: str, name: str) -> None:
    """With the command that installs what it needs."""
    rows = [line for line in (ROOT / DOCS[key]).read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert rows
    extra = EXTRAS[key][name]
    assert extra is None or any(install_hint(extra) in row for row in rows)


@pytest.mark.parametrize("name", IMPORTERS)
def test_the_docs_have_a_row_for_a_format(name: str) -> None:
    """With what becomes of its files, and the module reads them."""
    page = (ROOT / "docs/importing.md").read_text()
    assert [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
    assert {*Asked.__struct_fields__} >= importlib.import_module(IMPORTERS[name]).OPTIONS


def test_every_extra_can_be_installed() -> None:
    """What an error tells to install is an extra of the package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {extra for names in EXTRAS.values() for extra in names.values() if extra}
    assert needed <= set(extras)


def test_auto_ends_with_a_meter_that_needs_nothing() -> None:
    """The ranks are an order, and its last is there on every machine."""
    ranks = [kind.rank for kind in METERS.values() if kind.rank is not None]
    assert len(set(ranks)) == len(ranks)
    last = METERS[ranked_meters()[-1]]
    assert last.extra is None and last.gpus is None


@pytest.mark.parametrize("name", METERS)
def test_a_meters_module_does_what_the_registry_says(name: str) -> None:
    """It opens a meter, and is the vendor of its GPUs where it has some; without its package it says what to install."""
    kind = METERS[name]
    try:
        module = importlib.import_module(kind.module)
    except ModuleNotFoundError:
        assert kind.extra is not None
        with pytest.raises(MissingExtraError) as caught:
            create_meter(Plan(meter=MeterPlan(name=name)), devices=[], pid=None)
        assert caught.value.hint == install_hint(kind.extra)
        return
    except MeterError as error:  # the package is there, the vendor's library below it is not
        assert error.hint is not None
        return
    protocol = Vendor if kind.gpus else MeterModule
    for function in [name for name in dir(protocol) if not name.startswith("_")]:
        wanted = list(inspect.signature(getattr(protocol, function)).parameters)[1:]
        assert list(inspect.signature(getattr(module, function)).parameters) == wanted, function


@pytest.mark.parametrize("name", ENGINES)
def test_an_engines_checks_load_no_model_runtime(name: str) -> None:
    """The module that looks at the plan beforehand has no package of the extra in its own namespace."""
    checks = importlib.import_module(ENGINES[name].checks)
    assert callable(checks.check)
    assert not set(ENGINES[name].packages) & set(vars(checks))


def test_every_text_format_is_offered() -> None:
    """By `llem query` all of them, by `llem export` those that can be read back; the error names the same."""
    page = " ".join(reference().split())  # typer puts choices in brackets of one kind or another
    assert f"table|lines|{'|'.join(TEXT_FORMATS)}|parquet" in page
    assert re.search(rf"[<\[]{re.escape('|'.join(Format))}[>\]]", page)
    assert [name for name in TEXT_FORMATS if name in list(Format)] == ["csv", "json", "jsonl"]


def _example(what: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of CONTRIBUTING.md that begins with these words, loaded under its name, with its line in the registry."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (source,) = re.findall(rf'```python\n("""The {what}: .*?)```', page, re.DOTALL)
    (line,) = re.findall(rf'`("{what.split()[0]}": .*?),`', page)
    ((name, kind),) = eval(f"{{{line}}}", {"MeterKind": MeterKind, "EngineKind": EngineKind}).items()
    module = ModuleType(kind.module)
    exec(compile(source, "CONTRIBUTING.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, kind.module, module)
    monkeypatch.setitem(METERS if isinstance(kind, MeterKind) else ENGINES, name, kind)
    return module


def test_the_example_of_a_meter_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its module and its line are all that it takes to choose it, to be told why it cannot be read, and to read it."""
    module, plan = _example("board meter", monkeypatch), Plan(meter=MeterPlan(name="board"))
    monkeypatch.setattr(module, "HWMON", tmp_path)
    assert ranked_meters()[-2:] == ["board", "estimate"]
    with pytest.raises(MeterError, match="no power1_input under"):
        require_meter(plan, devices=[])
    (tmp_path / "hwmon0").mkdir()
    (tmp_path / "hwmon0" / "power1_input").write_text("65000000\n")
    meter = create_meter(plan, devices=[], pid=None)
    (metered,), (reading,), (edge,) = meter.devices(), meter.read(), meter.read_edge()
    assert (metered.energy_source, metered.power_kind, reading.power_mw) == ("integrated", "instant", 65_000)
    assert edge.energy_mj is None and edge.reason == "not asked of hwmon"
    meter.close()


def test_the_example_of_an_engine_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module and its line are all that it takes to check a plan and to run a batch."""
    _example("echo engine", monkeypatch)
    plan = Plan(engine=EnginePlan(name="echo"))
    check_engine(plan)
    with pytest.raises(PlanError, match="found the echo engine"):
        check_engine(Plan(engine=EnginePlan(name="echo"), generation={"do_sample": True}))
    engine = create_engine(plan, device=None)
    batch = engine.encode([Prompt(request_id=7, max_new_tokens=3, text="ab", seed=0)])
    now_ns, counted = time.monotonic_ns(), []
    (request,) = engine.run(
        batch, batch_index=0, arrival_ns=now_ns, should_stop=lambda: False, on_tokens=counted.append
    )
    assert (request.request_id, request.output_tokens, request.finish_reason) == (7, 3, "length")
    assert counted == [1, 1, 1]
