"""python -m website [FOLDER]: builds the site in FOLDER/site, build/website/site by default; a warning ends it with 1."""

import shutil
import subprocess
import sys
from pathlib import Path

from website.pages import ROOT, gather

HERE = Path(__file__).parent


def build(folder: Path) -> int:
    """Gather the pages and make the site of them; the exit status is zensical's."""
    shutil.rmtree(folder, ignore_errors=True)
    gather(folder / "pages")
    shutil.copyfile(HERE / "zensical.toml", folder / "zensical.toml")
    shutil.copyfile(HERE / "extra.css", folder / "pages" / "extra.css")
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, check=False
    ).returncode


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "website"
    status = build(chosen)
    print(f"{chosen / 'site'}: look at it with python -m http.server -d {chosen / 'site'}")
    sys.exit(status)
