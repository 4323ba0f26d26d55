"""Which rank a process is, by the variables of its launcher."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.errors import MeasureError
from llem.measure.launch import (
    FIRST_SPECIAL_STEP,
    Rank,
    first_host,
    group_environment,
    host_and_port,
    launch_of,
    meeting_host,
)

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "host-0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "abc",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_NTASKS": "12",
    "SLURM_NNODES": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "77",
    "SLURMD_NODENAME": "n3",
    "SLURM_STEP_NODELIST": "n[1-3]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x3)",
}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
    "PMIX_NAMESPACE": "4007329793",
}
KUBERNETES = {"JOB_COMPLETION_INDEX": "4", "LLEM_SIZE": "6"}
BY_HAND = {"LLEM_RANK": "0", "LLEM_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TORCHRUN, ("torchrun", 3, 8, 1, 2, 1, 2)),
        (SLURM, ("slurm", 5, 12, 1, 4, 2, 0)),
        (HYDRA, ("pmi", 1, 2, 0, 1, None, 0)),
        (OPEN_MPI, ("openmpi", 2, 3, 2, 3, None, 0)),
        (KUBERNETES, ("kubernetes", 4, 6, 0, 1, 4, 0)),
        (BY_HAND, ("llem", 0, 2, None, None, None, 0)),
    ],
    ids=lambda case: case[0] if isinstance(case, tuple) else "",
)
def test_every_launcher_is_known_by_its_variables(environment, expected):
    """Rank, size and what else a launcher tells are read from its own variables."""
    launch = launch_of(environment)
    rank = launch.rank
    assert rank is not None
    assert not launch.contradictions
    seen = (rank.launcher, rank.rank, rank.size, rank.local_rank, rank.local_size, rank.node, rank.restart)
    assert seen == expected


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"},
        SLURM | {"SLURM_STEP_ID": str(FIRST_SPECIAL_STEP)},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"LLEM_SIZE": "1"},
        TORCHRUN | {"LLEM_SIZE": "1"},
        TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"},
    ],
)
def test_what_no_launcher_started_is_alone(environment):
    """A batch script, a job of one task, stray variables and LLEM_SIZE=1 leave a process alone."""
    assert launch_of(environment).rank is None


@pytest.mark.parametrize(
    "environment",
    [
        {"LLEM_RANK": "1"},
        {"LLEM_SIZE": "3"},
        {"LLEM_RANK": "2", "LLEM_SIZE": "2"},
        {"LLEM_RANK": "-1", "LLEM_SIZE": "2"},
        {"JOB_COMPLETION_INDEX": "0"},
        {"TORCHELASTIC_RUN_ID": "x"},
        TORCHRUN | {"RANK": "8"},
        TORCHRUN | {"RANK": "one"},
        {name: value for name, value in SLURM.items() if name != "SLURM_PROCID"},
        {name: value for name, value in OPEN_MPI.items() if name != "OMPI_COMM_WORLD_SIZE"},
    ],
)
def test_ranks_that_cannot_be_used_are_refused(environment):
    """A launcher whose variables are broken never leaves processes that measure each alone."""
    with pytest.raises(MeasureError, match="LLEM_SIZE"):
        launch_of(environment)


def test_the_innermost_launcher_wins_and_the_contradiction_is_told():
    """torchrun inside a step of Slurm gives the rank; Slurm's other size is named."""
    launch = launch_of(SLURM | TORCHRUN)
    assert launch.rank is not None and launch.rank.launcher == "torchrun"
    assert launch.contradictions == [
        "torchrun says rank 3 of 8, slurm says rank 5 of 12: torchrun is believed, the innermost"
    ]


def test_launchers_that_agree_complete_each_other():
    """Slurm's PMI has no local ranks; those of its other variables hold."""
    pmi = {"PMI_RANK": "5", "PMI_SIZE": "12"}
    launch = launch_of(SLURM | pmi)
    assert launch.rank is not None
    assert (launch.rank.launcher, launch.rank.local_rank, launch.rank.local_size) == ("pmi", 1, 4)
    assert not launch.contradictions


def test_a_job_can_be_named():
    """LLEM_JOB stands in the place of the launcher's own name of the job."""
    rank = launch_of(HYDRA | {"LLEM_JOB": "mine"}).rank
    assert rank is not None and rank.job_key == "mine"


@pytest.mark.parametrize(
    ("environment", "host"),
    [
        (TORCHRUN, "host-0"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, "127.0.0.1"),
        (SLURM, "n1"),
        (SLURM | {"MASTER_ADDR": "n2"}, "n2"),
        (HYDRA | {"LLEM_RENDEZVOUS": "node-a:5000"}, "node-a:5000"),
        (OPEN_MPI, "127.0.0.1"),
    ],
)
def test_where_ranks_meet_follows_from_the_variables(environment, host):
    """LLEM_RENDEZVOUS first, then this machine where all are on it, MASTER_ADDR, the first node of the step."""
    rank = launch_of(environment).rank
    assert rank is not None
    assert meeting_host(environment, rank) == host


def test_ranks_of_several_machines_without_a_place_to_meet_are_refused():
    """hydra says nothing of where rank 0 is, so it has to be said."""
    rank = launch_of(HYDRA).rank
    assert rank is not None
    with pytest.raises(MeasureError, match="LLEM_RENDEZVOUS"):
        meeting_host(HYDRA, rank)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n[1-3]", "n1"),
        ("n[01,03-12]-ib,x", "n01-ib"),
        ("login", "login"),
        ("a1,b[2-4]", "a1"),
        ("", None),
    ],
)
def test_the_first_of_a_list_of_nodes_is_found(nodes, first):
    """Slurm's short form of many names."""
    assert first_host(nodes) == first


@given(st.text(alphabet="n0123456789[],-x()", max_size=40))
def test_no_list_of_nodes_fails(nodes):
    """Whatever the variable holds, its first name is a text or nothing."""
    assert first_host(nodes) is None or isinstance(first_host(nodes), str)


VALUES = st.one_of(st.integers(0, 20).map(str), st.text(alphabet="0123456789abx()-,", max_size=6))
NAMES = sorted({*TORCHRUN, *SLURM, *HYDRA, *OPEN_MPI, *KUBERNETES, *BY_HAND})


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=12))
def test_any_variables_give_a_rank_or_none_or_are_refused(environment):
    """A rank is below its size, which is above one."""
    try:
        launch = launch_of(environment)
    except MeasureError:
        return
    if launch.rank is not None:
        assert isinstance(launch.rank, Rank)
        assert 0 <= launch.rank.rank < launch.rank.size
        assert launch.rank.size > 1


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("node-a", "node-a", None),
        ("node-a:5000", "node-a", 5000),
        ("10.0.0.1:5000", "10.0.0.1", 5000),
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("[fe80::1%eth0]:5000", "fe80::1%eth0", 5000),
    ],
)
def test_rank_0_is_at_any_kind_of_address(written: str, host: str, port: int | None) -> None:
    """For the ranks of llem and for those of a model that is split over them."""
    assert host_and_port(written) == (host, port)
    rank = launch_of(HYDRA).rank
    assert rank is not None
    found = group_environment(HYDRA | {"LLEM_RENDEZVOUS": written}, rank, sees_own_gpu=False)
    assert found["MASTER_ADDR"] == host


@pytest.mark.parametrize(
    "written", ["node-a:", "node-a:x", "node-a:0", "node-a:65536", "node-a:٣", ":5000", "[::1]:"]
)
def test_an_address_of_rank_0_that_is_none_is_refused(written: str) -> None:
    """With the variable's name."""
    with pytest.raises(MeasureError, match="LLEM_RENDEZVOUS"):
        host_and_port(written)
