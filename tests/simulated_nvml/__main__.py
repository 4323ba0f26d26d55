"""Run any command as if this host had GPUs: python -m tests.simulated_nvml [SCENARIO.toml] -- COMMAND ..."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.simulated_nvml.build import environment
from tests.simulated_nvml.scenario import Scenario, hosts_gpus


def main(arguments: list[str]) -> int:
    """The command's exit status; two H100s where no scenario is given."""
    if "--" not in arguments or len(arguments) < 2 or arguments[-1] == "--":
        print(__doc__, file=sys.stderr)
        return 2
    split = arguments.index("--")
    names, command = arguments[:split], arguments[split + 1 :]
    scenario = msgspec.toml.decode(Path(names[0]).read_bytes(), type=Scenario) if names else hosts_gpus(2)
    with tempfile.TemporaryDirectory(prefix="simulated-nvml-") as folder:
        inside = environment(scenario, Path(folder))
        beside = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        return subprocess.run(["env", *command], env={**inside, **beside}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
