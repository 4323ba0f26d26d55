"""What the installed torch was built for, read from its files: importing it takes seconds."""

import re
from importlib import metadata, util
from pathlib import Path

_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)


def torch_version() -> str | None:
    """Installed version, None without torch."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def torch_cuda_version() -> str | None:
    """CUDA version of the build; None for a CPU build or without torch."""
    found = util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    return cuda_version_in(Path(found.submodule_search_locations[0]) / "version.py")


def cuda_version_in(path: Path) -> str | None:
    """The `cuda` that a torch/version.py assigns."""
    try:
        match = _CUDA.search(path.read_text())
    except OSError:
        return None
    return match[1] if match else None
