"""The site is made without a warning, is whole, and loads nothing from elsewhere."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from website.pages import ROOT, cell_parts, with_links

# What a browser fetches by itself; a link of an `a` waits for a click.
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src"}
STYLES = re.compile(r"(?:url\(|@import\s+)[\"']?(?!data:|#)([^\"')]+)")


class Page(HTMLParser):
    """What a page of the site links to, loads, and can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids = {""}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values.get("id", "")}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif LOADS.get(tag) in values:
            self.loads.append(values[LOADS[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the pages as they are; a warning ends the building."""
    pytest.importorskip("zensical")
    folder = tmp_path_factory.mktemp("website")
    done = subprocess.run(
        [sys.executable, "-m", "website", folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "No issues found" in done.stdout + done.stderr, done.stdout
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page but that of what is not found, whose links are for the root of a server."""
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def broken(page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    """Links and files of a page that lead nowhere within the site."""
    for link in page.links + page.loads:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = page.file.parent.joinpath(unquote(parts.path)).resolve() if parts.path else page.file
        target = target / "index.html" if target.is_dir() else target
        if not target.exists() or (target in pages and parts.fragment not in pages[target].ids):
            yield link


@pytest.mark.slow
def test_every_link_leads_somewhere(pages: dict[Path, Page]) -> None:
    """To a file of the site, and where it names a place of a page, to one that the page has."""
    found = {str(file): list(broken(page, pages)) for file, page in pages.items()}
    assert len(pages) > 20
    assert {file: links for file, links in found.items() if links} == {}


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """No script, picture, style or font of another host, in no page and no style sheet."""
    assert [link for page in pages.values() for link in page.loads if urlsplit(link).netloc] == []
    styles = [*site.rglob("*.css"), *site.rglob("*.html")]
    loaded = [link for file in styles for link in STYLES.findall(file.read_text(encoding="utf-8"))]
    assert [link for link in loaded if urlsplit(link).netloc] == []


@pytest.mark.slow
def test_the_search_knows_every_page(site: Path, pages: dict[Path, Page]) -> None:
    """A command and a figure are found by their names."""
    index = (site / "search.json").read_text(encoding="utf-8")
    assert [file for file in pages if file.relative_to(site).as_posix() not in index] == []
    assert "llem calibrate" in index and "energy_per_output_token_j" in index


def test_every_page_is_in_the_navigation() -> None:
    """Of docs, each page once."""
    settings = tomllib.loads((ROOT / "website" / "zensical.toml").read_text(encoding="utf-8"))
    shown = re.findall(r"'([\w/-]+\.md)'", str(settings["project"]["nav"]))
    written = [
        file.relative_to(ROOT).with_suffix(".md").as_posix()
        for file in (ROOT / "docs").rglob("*.*")
        if file.suffix in (".md", ".ipynb")
    ]
    assert sorted(page for page in shown if page.startswith("docs/")) == sorted(written)
    assert len(shown) == len(set(shown))


def test_links_lead_to_what_the_site_has() -> None:
    """Code is shown as text, a notebook is a page, a folder is no link; others and examples in code stay."""
    text = "[a](../llem/plan.py) [b](notebook.ipynb#x) [c](../llem/measure) [d](accuracy.md#sources) [e](https://x.y) [f](none)"
    assert with_links(text, Path("docs/README.md")) == (
        "[a](../llem/plan.py.txt) [b](notebook.md#x) c [d](accuracy.md#sources) [e](https://x.y) [f](none)"
    )


def test_what_a_cell_showed_follows_its_code() -> None:
    """A table where there is one, else the text."""
    table = {"data": {"text/html": ["<table>", "</table>"], "text/plain": "t"}}
    cell = {"cell_type": "code", "source": ["a\n", "b"], "outputs": [table, {"text": ["x\n"]}]}
    assert list(cell_parts(cell)) == [
        "```python\na\nb\n```",
        '<div class="output">\n<table></table>\n</div>',
        "```text\nx\n```",
    ]
