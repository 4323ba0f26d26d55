"""A name of the registry is known everywhere: to the plan, the help, the docs, the packaging and the code that loads it."""

import importlib
import inspect
import tomllib
from pathlib import Path

import pytest

from llem.cli.reference import reference
from llem.errors import MissingExtraError, PlanError
from llem.export.formats import TEXT_FORMATS, Format
from llem.meters import create_meter
from llem.meters.base import MeterModule, Vendor
from llem.plan import MeterPlan, Plan
from llem.plan_file import resolve_plan
from llem.registry import ENGINES, METERS, install_hint, one_of, ranked_meters

ROOT = Path(__file__).parents[1]
NAMES = [("meter.name", name) for name in METERS] + [("engine.name", name) for name in ENGINES]
DOCS = {"meter.name": "docs/accuracy.md", "engine.name": "docs/engines.md"}
EXTRAS = {"meter.name": {name: kind.extra for name, kind in METERS.items()},
          "engine.name": {name: kind.extra for name, kind in ENGINES.items()}}  # fmt: skip


@pytest.mark.parametrize(("key", "name"), NAMES)
def test_a_plan_can_name_it(key: str, name: str) -> None:
    """Each name is a value of its key."""
    plan = resolve_plan(None, options={key: name})
    assert name in (plan.meter.name, plan.engine.name)


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


@pytest.mark.parametrize(("key", "name"), NAMES)
def test_the_docs_have_a_row_for_it(key: str, name: str) -> None:
    """With the command that installs what it needs."""
    rows = [line for line in (ROOT / DOCS[key]).read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert rows
    extra = EXTRAS[key][name]
    assert extra is None or any(install_hint(extra) in row for row in rows)


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
    page = reference()
    assert f"<table|lines|{'|'.join(TEXT_FORMATS)}|parquet>" in page
    assert f"<{'|'.join(Format)}>" in page
    assert [name for name in TEXT_FORMATS if name in list(Format)] == ["csv", "json", "jsonl"]
