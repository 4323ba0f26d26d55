"""Which of the processes that a launcher started this one is, read from the variables that the launcher set.

Two kinds of variables count: those of the innermost launcher, and LLEM_RANK with LLEM_SIZE, which win over all of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llem.errors import MeasureError
from llem.measure.rank_wire import port_of

Environment = Mapping[str, str]
# Slurm numbers the steps of a batch script, of `salloc` and of its own from here on: none of them starts tasks.
FIRST_SPECIAL_STEP = 0xFFFF_FFFA
LLEM_RANK, LLEM_SIZE = "LLEM_RANK", "LLEM_SIZE"
LLEM_JOB = "LLEM_JOB"
INDEX_OF_A_JOB = "JOB_COMPLETION_INDEX"  # of Kubernetes
RENDEZVOUS = "LLEM_RENDEZVOUS"
GROUP_ATTEMPT = 64  # a port of the job beside those at which its ranks may meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One of `size` processes; what its launcher does not tell is None."""

    launcher: str
    job_key: str  # the same for all ranks of a job, and for no other's that meets at the same place
    rank: int
    size: int
    local_rank: int | None = None  # among those of its machine
    local_size: int | None = None
    node: int | None = None  # number of the machine
    restart: int = 0  # how often the launcher has started all of them anew

    @property
    def leads(self) -> bool:
        """Whether it is the one that opens and closes the experiment."""
        return self.rank == 0


@dataclass(frozen=True, slots=True)
class Launch:
    """What the variables say: a rank, or None for a process that is alone; and what they contradict each other in."""

    rank: Rank | None
    contradictions: Sequence[str] = ()


def launch_of(environment: Environment) -> Launch:
    """Raises MeasureError where a launcher's variables are there and cannot be used: such a process is never taken for one alone."""
    named = [rank for source in _SOURCES if (rank := source(environment)) is not None]
    if not named:
        return Launch(None)
    first, *others = named
    against = [_contradiction(first, other) for other in others if _place(other) != _place(first)]
    agreeing = [other for other in others if _place(other) == _place(first)]
    chosen = replace(_completed(first, agreeing), job_key=environment.get(LLEM_JOB) or first.job_key)
    return Launch(chosen if chosen.size > 1 else None, against)


def meeting_host(environment: Environment, rank: Rank) -> str:
    """Where rank 0 listens, as the variables say: a name or an address, perhaps with a port. Raises MeasureError where they do not."""
    if named := environment.get(RENDEZVOUS):
        return named
    if rank.local_size == rank.size:
        return "127.0.0.1"
    nodes = environment.get("SLURM_STEP_NODELIST", "") if rank.launcher == "slurm" else ""
    if found := environment.get("MASTER_ADDR") or first_host(nodes):
        return found
    raise MeasureError(
        f"rank {rank.rank} of {rank.size} does not know where rank 0 is",
        found=f"{rank.launcher}, which does not say it",
        expected=f"{RENDEZVOUS}=HOST, the machine of rank 0",
        hint=f"set it for all ranks, or {LLEM_SIZE}=1 for an experiment of each alone",
    )


def host_and_port(written: str) -> tuple[str, int | None]:
    """A host and perhaps a port; an IPv6 address before a port stands in brackets. Raises MeasureError."""
    host, colon, port = written.rpartition(":")
    if not colon or written.endswith("]") or (":" in host and not host.endswith("]")):
        return written.strip("[]"), None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16 or not host.strip("[]"):
        raise MeasureError(
            f"variable {RENDEZVOUS}", found=repr(written), expected="HOST, HOST:PORT or [IPv6]:PORT"
        )
    return host.strip("[]"), int(port)


def group_environment(environment: Environment, rank: Rank, *, sees_own_gpu: bool) -> dict[str, str]:
    """The variables by which torch.distributed brings the ranks together; torchrun has set its own."""
    own = {"LOCAL_RANK": "0"} if sees_own_gpu else {}
    if rank.launcher == "torchrun":
        return own
    address, _ = host_and_port(meeting_host(environment, rank))
    port = str(port_of(rank.job_key, GROUP_ATTEMPT))
    names = {"RANK": str(rank.rank), "WORLD_SIZE": str(rank.size), "MASTER_ADDR": address}
    local = {"LOCAL_RANK": str(rank.local_rank or 0), "LOCAL_WORLD_SIZE": str(rank.local_size or 1)}
    return {**names, **local, "MASTER_PORT": environment.get("MASTER_PORT", port), **own}


def first_host(nodes: str) -> str | None:
    """The first name of a list of Slurm's, such as `n[01-03,7],login`."""
    name = re.match(r"[^,\[]*(?:\[(\d+)[^\]]*\])?[^,\[]*", nodes)
    written = name.group() if name else ""
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", written) or None


def _place(rank: Rank) -> tuple[int, int]:
    return rank.rank, rank.size


def _contradiction(chosen: Rank, other: Rank) -> str:
    return (
        f"{chosen.launcher} says rank {chosen.rank} of {chosen.size}, {other.launcher} says rank {other.rank} "
        f"of {other.size}: {chosen.launcher} is believed, the innermost"
    )


def _completed(rank: Rank, agreeing: Sequence[Rank]) -> Rank:
    """What the rank's own launcher does not tell, from others that agree with it."""
    for other in agreeing:
        for name in ("local_rank", "local_size", "node"):
            if getattr(rank, name) is None:
                rank = replace(rank, **{name: getattr(other, name)})
    return rank


def _by_hand(environment: Environment) -> Rank | None:
    if not {LLEM_RANK, LLEM_SIZE} & environment.keys():
        return None
    if LLEM_RANK not in environment and INDEX_OF_A_JOB in environment:
        return None
    size = _number(environment, LLEM_SIZE, needed_by=LLEM_RANK)
    alone = size == 1 and LLEM_RANK not in environment
    return _checked(
        Rank(
            launcher="llem",
            job_key="by-hand",
            rank=0 if alone else _number(environment, LLEM_RANK, needed_by=LLEM_SIZE),
            size=size,
            local_rank=_perhaps(environment, "LLEM_LOCAL_RANK"),
            local_size=_perhaps(environment, "LLEM_LOCAL_SIZE"),
        )
    )


def _torchrun(environment: Environment) -> Rank | None:
    run = environment.get("TORCHELASTIC_RUN_ID")
    if run is None and not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    restart = _perhaps(environment, "TORCHELASTIC_RESTART_COUNT") or 0
    meeting = ":".join(environment.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return _checked(
        Rank(
            launcher="torchrun",
            job_key=f"{run}:{meeting}:{restart}",
            rank=_number(environment, "RANK", needed_by="TORCHELASTIC_RUN_ID"),
            size=_number(environment, "WORLD_SIZE", needed_by="RANK"),
            local_rank=_perhaps(environment, "LOCAL_RANK"),
            local_size=_perhaps(environment, "LOCAL_WORLD_SIZE"),
            node=_perhaps(environment, "GROUP_RANK"),
            restart=restart,
        )
    )


def _open_mpi(environment: Environment) -> Rank | None:
    if "OMPI_COMM_WORLD_RANK" not in environment:
        return None
    return _checked(
        Rank(
            launcher="openmpi",
            job_key=environment.get("PMIX_NAMESPACE", "openmpi"),
            rank=_number(environment, "OMPI_COMM_WORLD_RANK", needed_by="OMPI_COMM_WORLD_RANK"),
            size=_number(environment, "OMPI_COMM_WORLD_SIZE", needed_by="OMPI_COMM_WORLD_RANK"),
            local_rank=_perhaps(environment, "OMPI_COMM_WORLD_LOCAL_RANK"),
            local_size=_perhaps(environment, "OMPI_COMM_WORLD_LOCAL_SIZE"),
        )
    )


def _pmi(environment: Environment) -> Rank | None:
    """Hydra of MPICH and Intel MPI, and Slurm's own."""
    if "PMI_RANK" not in environment:
        return None
    return _checked(
        Rank(
            launcher="pmi",
            job_key=environment.get("PMI_JOBID") or environment.get("SLURM_JOB_ID") or "pmi",
            rank=_number(environment, "PMI_RANK", needed_by="PMI_RANK"),
            size=_number(environment, "PMI_SIZE", needed_by="PMI_RANK"),
            local_rank=_perhaps(environment, "MPI_LOCALRANKID"),
            local_size=_perhaps(environment, "MPI_LOCALNRANKS"),
        )
    )


def _slurm(environment: Environment) -> Rank | None:
    """Of a task of a step: a batch script has a rank of 0 as well, and is none of its tasks."""
    step = _perhaps(environment, "SLURM_STEP_ID")
    tasks = _perhaps(environment, "SLURM_NTASKS")
    if step is None or step >= FIRST_SPECIAL_STEP or tasks is None or tasks <= 1:
        return None
    node = _perhaps(environment, "SLURM_NODEID")
    return _checked(
        Rank(
            launcher="slurm",
            job_key=f"{environment.get('SLURM_JOB_ID', '')}.{step}",
            rank=_number(environment, "SLURM_PROCID", needed_by="SLURM_STEP_ID"),
            size=tasks,
            local_rank=_perhaps(environment, "SLURM_LOCALID"),
            local_size=_tasks_of_node(environment.get("SLURM_STEP_TASKS_PER_NODE", ""), node),
            node=node,
            restart=_perhaps(environment, "SLURM_RESTART_COUNT") or 0,
        )
    )


def _kubernetes(environment: Environment) -> Rank | None:
    """An indexed Job does not say how many its pods are: the size has to be passed."""
    if INDEX_OF_A_JOB not in environment or LLEM_RANK in environment:
        return None
    return _checked(
        Rank(
            launcher="kubernetes",
            job_key="kubernetes",
            rank=_number(environment, INDEX_OF_A_JOB, needed_by=INDEX_OF_A_JOB),
            size=_number(environment, LLEM_SIZE, needed_by=INDEX_OF_A_JOB),
            local_rank=0,
            local_size=1,
            node=_perhaps(environment, INDEX_OF_A_JOB),
        )
    )


# The innermost first: torchrun may have been started by mpiexec, and that by srun.
_SOURCES: Sequence[Callable[[Environment], Rank | None]] = (
    _by_hand,
    _torchrun,
    _open_mpi,
    _pmi,
    _slurm,
    _kubernetes,
)


def _tasks_of_node(written: str, node: int | None) -> int | None:
    """How many tasks a node has, of Slurm's `4(x2),3`."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", written):
        counts += [int(count)] * min(int(times or 1), 100_000)
    return counts[node] if node is not None and node < len(counts) else None


def _perhaps(environment: Environment, name: str) -> int | None:
    written = environment.get(name, "")
    return int(written) if re.fullmatch(r"[0-9]{1,18}", written) else None


def _number(environment: Environment, name: str, *, needed_by: str) -> int:
    number = _perhaps(environment, name)
    if number is None:
        raise MeasureError(
            f"variable {name}",
            found=repr(environment[name]) if name in environment else f"none beside {needed_by}",
            expected="the number that the launcher set",
            hint=f"set it, or {LLEM_SIZE}=1 and {LLEM_RANK}=0 for an experiment of each process alone",
        )
    return number


def _checked(rank: Rank) -> Rank:
    if rank.rank >= rank.size:
        raise MeasureError(
            f"variables of {rank.launcher}",
            found=f"rank {rank.rank} of {rank.size}",
            expected="a rank below the size",
            hint=f"{LLEM_SIZE}=1 and {LLEM_RANK}=0 stand for an experiment of this process alone",
        )
    return rank
