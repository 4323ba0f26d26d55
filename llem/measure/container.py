"""Whether this process runs in a container, and in which."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARKS = {"/.dockerenv": "docker", "/run/.containerenv": "podman", "/.singularity.d": "apptainer"}
_VARIABLES = {
    "KUBERNETES_SERVICE_HOST": "kubernetes",
    "APPTAINER_CONTAINER": "apptainer",
    "SINGULARITY_CONTAINER": "singularity",
}
_CGROUPS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "containerd": "containerd",
    "libpod": "podman",
    "lxc": "lxc",
}


def container(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """`detected`, and the `runtime` where it can be told."""
    marks = (runtime for path, runtime in _MARKS.items() if (root / path.lstrip("/")).exists())
    told = (runtime for name, runtime in _VARIABLES.items() if name in environ)
    runtime = next(told, None) or next(marks, None) or _from_cgroup(root / "proc/1/cgroup")
    return {"detected": runtime is not None, "runtime": runtime}


def _from_cgroup(path: Path) -> str | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    return next((runtime for word, runtime in _CGROUPS.items() if word in text), None)
