"""Gathers the pages of the site: every page of the repository that a link leads to, at the place where it lies there."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = Path("README.md")
LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<file>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def gather(folder: Path) -> None:
    """Copy the home page and all that it leads to."""
    found, waiting = {HOME}, [HOME]
    while waiting:
        source = waiting.pop()
        target = folder / published(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix not in (".md", ".ipynb"):
            shutil.copyfile(ROOT / source, target)
            continue
        text = page_text(source)
        target.write_text(with_links(text, source), encoding="utf-8")
        new = set(linked_files(text, source)) - found
        found |= new
        waiting += new


def published(source: Path) -> Path:
    """Where the site has a file: a notebook is a page, and what is no page is shown as text."""
    if source.suffix == ".md":
        return source
    return source.with_suffix(".md") if source.suffix == ".ipynb" else source.with_name(source.name + ".txt")


def page_text(source: Path) -> str:
    """A page in Markdown."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return notebook_page(json.loads(text)) if source.suffix == ".ipynb" else text


def linked_files(text: str, source: Path) -> Iterator[Path]:
    """Files of the repository that a page links to."""
    for link in LINK.finditer(text):
        file = of_the_repository(source, link["file"])
        if file is not None and (ROOT / file).is_file():
            yield file


def with_links(text: str, source: Path) -> str:
    """The page with links to what the site has; one to a folder is only its text."""

    def rewrite(link: re.Match[str]) -> str:
        file = of_the_repository(source, link["file"])
        if file is None:
            return link[0]
        if (ROOT / file).is_dir():
            return link["text"]
        target = Path(link["file"]).with_name(published(file).name)
        return f"[{link['text']}]({target.as_posix()}{link['anchor'] or ''})"

    return LINK.sub(rewrite, text)


def of_the_repository(source: Path, link: str) -> Path | None:
    """The place in the repository that a link names, where there is something."""
    place = (ROOT / source).parent.joinpath(link).resolve()
    return place.relative_to(ROOT) if place.is_relative_to(ROOT) and place.exists() else None


def notebook_page(notebook: dict[str, list[dict[str, object]]]) -> str:
    """A notebook in Markdown: its text, its code and what that showed."""
    return "\n\n".join(part for cell in notebook["cells"] for part in cell_parts(cell)) + "\n"


def cell_parts(cell: dict[str, object]) -> Iterator[str]:
    text = joined(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    outputs: list[dict[str, dict[str, object]]] = cell["outputs"]  # type: ignore[assignment]
    for output in outputs:
        shown = output.get("data", {})
        if "text/html" in shown:
            yield f'<div class="output">\n{joined(shown["text/html"])}\n</div>'
        else:
            yield f"```text\n{joined(shown.get('text/plain', output.get('text'))).rstrip()}\n```"


def joined(lines: object) -> str:
    """A text of a notebook, which may be kept as lines."""
    return "".join(lines) if isinstance(lines, list) else str(lines)
