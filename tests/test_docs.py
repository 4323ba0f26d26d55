"""What the pages for people say of this repository is so."""

import re
from pathlib import Path

import pytest

from llem.results import aggregate_results
from llem.results.figures import EXPERIMENT_FIGURES, Figure, create_table, row
from llem.results.nullable import ratio
from tests.world import process

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/README.md", "benchmarks/README.md")


def recipes() -> set[str]:
    """Names of the recipes of the justfile."""
    return set(
        re.findall(
            r"^([a-z][a-z-]*)[ a-z*]*:(?!=)", (ROOT / "justfile").read_text(encoding="utf-8"), re.MULTILINE
        )
    )


@pytest.mark.parametrize("page", PAGES)
def test_recipes_that_are_named_exist(page: str) -> None:
    """Each `just NAME` can be run."""
    named = set(
        re.findall(r"`(?:\.venv/bin/)?just ([a-z][a-z-]*)", (ROOT / page).read_text(encoding="utf-8"))
    )
    assert named <= recipes()


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """Each link to a file, and each path in backquotes that begins at the root, leads somewhere."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    paths = re.findall(r"`((?:llem|events|tests|benchmarks|docs)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_example_of_a_figure_is_one() -> None:
    """The entry in CONTRIBUTING.md makes a column, a comment and a value, and is no figure yet."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    entry = re.findall(r"```python\n(Figure\(.*?\n\))\n```", page, re.DOTALL)[0]
    figure = eval(entry, {"Figure": Figure, "ratio": ratio})
    assert figure.name not in {known.name for known in EXPERIMENT_FIGURES}
    column = "output_tokens_per_request DOUBLE, -- output tokens over requests"
    assert column in create_table("t", "it", [figure])
    joined = aggregate_results([process(requests=4), process(1, requests=6)], "run", "hash")
    assert row([figure], joined) == {"output_tokens_per_request": 80.0}
