"""What pyproject.toml permits, what constraints.txt locks, and what is installed agree."""

import ast
import re
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.environments import LOCK, PYTHONS, ROOT, differences, explain, failures, locked, requirements

EXTRAS = ("torch", "zeus", "test", "dev")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OURS = ("llem", "llem_events")
# Comes with Python itself, in a version of its own.
BROUGHT = ("pip", *OURS)


def declared(*extras: str) -> list[Requirement]:
    """What pyproject.toml names, our own extras left out."""
    named = map(Requirement, requirements(*extras))
    return [requirement for requirement in named if requirement.name not in OURS]


class WithoutTypeChecking(ast.NodeTransformer):
    """Leaves out what only a type checker imports."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_unused = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_unused else self.generic_visit(node)


def imported(folder: Path) -> set[str]:
    """Top-level names of every module that the code of a folder imports by statement."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        tree = WithoutTypeChecking().visit(ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_what_is_named_as_it_is_permitted(python: str) -> None:
    """Every direct dependency is in constraints.txt, within its bounds, for each supported Python."""
    versions = locked(python)
    for requirement in declared(*EXTRAS):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_the_lock_names_packages_and_nothing_else() -> None:
    """Exact versions and markers: no host, hash, path or comment."""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [a-zA-Z0-9_'<>=!. ()]+)?", line), line


def test_every_bound_from_above_has_its_reason() -> None:
    """The line above a requirement that refuses later versions says why."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounded = [
        number for number, line in enumerate(lines) if re.match(r'\s+"[\w-]+[^"#]*(<|!=|~=)[^"]*",', line)
    ]
    assert bounded
    for number in bounded:
        assert re.match(r"\s+# .{20,}", lines[number - 1]), lines[number]


@pytest.mark.slow
def test_what_is_imported_is_declared() -> None:
    """No module relies on a package that another package happens to bring."""
    names = {canonicalize_name(requirement.name) for requirement in declared("torch", "zeus", "amd")}
    owners = packages_distributions()
    for module in (imported(ROOT / "llem") | imported(ROOT / "events")) - sys.stdlib_module_names - set(OURS):
        # The extras of meters are not installed where the other tests run.
        assert names & {canonicalize_name(owner) for owner in owners.get(module, [module])}, module


@pytest.mark.slow
def test_every_installed_package_is_locked() -> None:
    """This environment holds nothing but what constraints.txt names, in its versions."""
    installed = {
        canonicalize_name(package.metadata["Name"]): package.version.partition("+")[0]
        for package in distributions()
    }
    others = differences(installed, THIS_PYTHON)
    assert {name: found for name, found in others.items() if name not in BROUGHT} == {}


def test_a_failure_names_the_packages_that_differ() -> None:
    """Where another set of packages fails, both versions are told, and first those whose files are in the traceback."""
    report = (
        '<testsuites><testsuite><testcase classname="tests.cli.test_a" name="test_b"><failure message="boom">'
        "/x/site-packages/typer/main.py:3: TypeError</failure></testcase>"
        '<testcase classname="tests.cli.test_a" name="test_c"/></testsuite></testsuites>'
    )
    differing = {"duckdb": ("1.5.1", "2.0.1"), "typer": ("0.16.0", "0.29.2")}
    assert explain("lowest packages under Python 3.11", failures(report), differing).splitlines() == [
        "lowest packages under Python 3.11: 1 tests failed",
        "  tests.cli.test_a::test_b",
        "packages that differ from constraints.txt:",
        "  typer 0.16.0, locked 0.29.2, in the traceback of 1",
        "  duckdb 1.5.1, locked 2.0.1",
    ]
