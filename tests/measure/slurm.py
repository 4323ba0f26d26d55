"""A whole Slurm on this machine: one controller and three nodes with names of their own, all of them processes of this test run."""

import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = ("n1", "n2", "n3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
START_LIMIT_S = 120.0
_FILE = """
ClusterName=llem
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=n1,n2,n3 Default=YES MaxTime=INFINITE State=UP
"""
_NODE = "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4"


def is_there() -> bool:
    """Whether Slurm and munge are installed, and may be started: both want to be root's."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return os.getuid() == 0 and all(shutil.which(program, path=path) for program in PROGRAMS)


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Its configuration, for SLURM_CONF, while it runs. The folder has to be open to all, for munge."""
    for name in ("state", "munge"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    host, ports = platform.node(), _free_ports(1 + len(NODES))
    nodes = [
        _NODE.format(node=node, host=host, port=port) for node, port in zip(NODES, ports[1:], strict=True)
    ]
    text = _FILE.format(host=host, port=ports[0], folder=folder, nodes="\n".join(nodes))
    configuration.write_text(text)
    try:
        _start(folder, configuration)
        yield configuration
    finally:
        for pid_file in [*folder.glob("slurm*.pid"), folder / "munge" / "pid"]:
            with suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)


def _start(folder: Path, configuration: Path) -> None:
    munge = folder / "munge"
    files = [f"--{name}={munge / name[:-5]}" for name in ("pid-file", "log-file", "seed-file")]
    _run("munged", f"--key-file={munge / 'key'}", f"--socket={munge / 'socket'}", *files, "--force")
    _run("slurmctld", "-f", configuration)
    for node in NODES:
        _run("slurmd", "-f", configuration, "-N", node)
    deadline = time.monotonic() + START_LIMIT_S
    while _idle(configuration) < len(NODES):
        assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
        time.sleep(0.2)


def _idle(configuration: Path) -> int:
    """Nodes that wait for work."""
    told = subprocess.run(
        ["sinfo", "-h", "-t", "idle", "-o", "%D"],
        env={**os.environ, "SLURM_CONF": str(configuration)},
        capture_output=True,
        text=True,
        check=False,
    )
    return int(told.stdout.strip() or 0)


def _run(program: str, *arguments: object) -> None:
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
    subprocess.run([program, *map(str, arguments)], env=path, check=True, timeout=START_LIMIT_S)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
