"""One bad experiment in a store: it is damaged with its reason, and every other one is answered."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import pytest

from llem.projections import catch_up, rebuild
from llem.store import Store
from llem_events.events import ExperimentStarted, ResultImported
from tests.conftest import LLEM, quiet, read_as_anybody
from tests.projections.tables import one, result, rows
from tests.world import (
    EXPERIMENT,
    at,
    experiment,
    request,
    sampler_events,
    supervisor,
    worker_events,
    write,
)

ODD = "odd-1"
Make = Callable[[Store, str], None]
PREDECESSOR = Path(__file__).parents[1] / "export" / "predecessor_result.json"


def worker(log: Store, experiment_id: str = ODD, **fields: int) -> None:
    """An experiment one of whose requests has odd fields."""
    supervisor(log, experiment_id=experiment_id)
    requests = [request(number, 10.0 + 2 * number, **(fields if number == 3 else {})) for number in range(10)]
    write(
        log,
        worker_events(requests=requests),
        role="worker",
        index=0,
        experiment_id=experiment_id,
        checked=False,
    )
    write(log, sampler_events(), role="sampler", index=0, experiment_id=experiment_id)


def with_header(**fields: int) -> Make:
    """An experiment whose worker's header is odd."""

    def make(log: Store, experiment_id: str) -> None:
        supervisor(log, experiment_id=experiment_id)
        write(log, worker_events(), role="worker", index=0, experiment_id=experiment_id, **fields)

    return make


def started(**fields: object) -> Make:
    """An experiment with an odd start."""

    def make(log: Store, experiment_id: str) -> None:
        event = ExperimentStarted(
            experiment_id=experiment_id,
            plan={},
            measurement_config_hash="h",
            expected_processes=1,
            llem_version="0",
        )
        odd = msgspec.structs.replace(event, **fields)
        write(log, [(0.0, odd)], role="supervisor", experiment_id=experiment_id, checked=False)
        write(log, worker_events(), role="worker", index=0, experiment_id=experiment_id)

    return make


def hot(log: Store, experiment_id: str) -> None:
    """A temperature that no column holds."""
    experiment(log, experiment_id=experiment_id, sampler=sampler_events(temperature_c=lambda _: 40_000))


def imported(**fields: int) -> Make:
    """An import that an older llem let in."""

    def make(log: Store, experiment_id: str) -> None:
        original = msgspec.json.decode(PREDECESSOR.read_bytes()) | fields
        event = ResultImported(
            format="llenergymeasure-2.0",
            file_name="x",
            file_sha256="x",
            original=msgspec.json.encode(original),
        )
        write(log, [(0.0, event)], role="import", experiment_id=experiment_id)

    return make


DAMAGED: dict[str, tuple[Make, str]] = {
    "a request id beyond 2^63": (lambda log, run_id: worker(log, run_id, request_id=2**63), "request_id"),
    "tokens beyond 2^31": (lambda log, run_id: worker(log, run_id, input_tokens=2**31), "input_tokens"),
    "an arrival in 200 years": (
        lambda log, run_id: worker(log, run_id, arrival_ns=2**62),
        "arrival_ns of requests",
    ),
    "a temperature of 40,000 C": (hot, "no column holds"),
    "a process id of 2^63": (with_header(pid=2**63), "pid"),
    "a wall clock in 2120": (with_header(wall_ns=2**62 + 1), "wall_ns of the header"),
    "2^31 - 1 processes": (started(expected_processes=2**31 - 1), "expected_processes"),
    "2^62 processes": (started(expected_processes=2**62), "expected_processes"),
    "a batch size of 2^63 in the plan": (
        started(plan={"engine": {"name": "x", "batch_size": 2**63}}),
        "no column holds",
    ),
    "a number as the name in the plan": (started(plan={"name": 2**31}), "config_name"),
    "an imported count of 2^63": (imported(total_tokens=2**63), "does not fit into 64 bits"),
}


@pytest.mark.slow
def test_what_cannot_be_makes_its_experiment_damaged(log: Store) -> None:
    """The reason is in the tables and in the report, the other experiment has its figures, and nothing is tried twice."""
    experiment(log)
    names = {f"odd-{number:02}": name for number, name in enumerate(DAMAGED)}
    for experiment_id, name in names.items():
        DAMAGED[name][0](log, experiment_id)
    told = [str(refusal) for refusal in catch_up(log).refused]
    assert len(told) == len(names)
    assert result(log)["total_energy_j"] == 4_080.0
    for experiment_id, name in names.items():
        odd = one(log, "FROM experiments WHERE experiment_id = ?", experiment_id)
        assert odd["status"] == "damaged", name
        assert DAMAGED[name][1] in odd["problem"]
        assert any(experiment_id in line and DAMAGED[name][1] in line for line in told), (name, told)
        assert rows(log, "FROM requests WHERE experiment_id = ?", experiment_id) == []
    second = catch_up(log)
    assert (second.blocks, second.derived, len(second.refused)) == (0, (), len(names))
    assert not rebuild(log, check=True).differs


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_a_damaged_experiment_that_grows_is_tried_again(log: Store) -> None:
    """Its file is replaced by one that can be read."""
    experiment(log)
    worker(log, request_id=2**63)
    catch_up(log)
    for path in log.segments(ODD):
        path.unlink()
    experiment(log, experiment_id=ODD)
    assert catch_up(log).refused == []
    assert result(log, ODD)["total_tokens"] == 120


def run(log: Store, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """The real program on the store."""
    done = subprocess.run(
        [LLEM, *arguments, "--store", str(log.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload] # what happens between fork and exec
    )
    return quiet(done)


@pytest.mark.slow
def test_every_command_answers_beside_a_damaged_experiment(log: Store, tmp_path: Path) -> None:
    """With exit status 0 and one line on stderr; the damaged one itself is refused with status 3, a rebuild too."""
    experiment(log)
    worker(log, arrival_ns=2**62)
    out = tmp_path / "out.csv"
    for arguments in (
        ["runs"],
        ["show", EXPERIMENT],
        ["query", "SELECT count(*) FROM experiments"],
        ["export", str(out), "--what", "samples"],
    ):
        done = run(log, *arguments)
        assert done.returncode == 0, done
        assert done.stderr.count(ODD) == 1, done.stderr
    refused = run(log, "show", ODD)
    assert refused.returncode == 3
    assert "arrival_ns" in refused.stderr
    assert run(log, "rebuild").returncode == 3


@pytest.mark.slow
def test_a_folder_of_another_user_is_damaged_and_named(log: Store) -> None:
    """As `sudo llem measure` leaves it in the store of an ordinary user: the command that mends it is told, the others are answered."""
    experiment(log)
    experiment(log, experiment_id=ODD)
    take_away(log.log_path / ODD)
    done = run(log, "runs", "--json", preexec_fn=read_as_anybody)
    assert done.returncode == 0, done.stderr
    assert f"sudo chown -R {os.geteuid()} {log.log_path / ODD}" in done.stderr
    statuses = {row["experiment_id"]: row["status"] for row in msgspec.json.decode(done.stdout)}
    assert statuses == {EXPERIMENT: "completed", ODD: "damaged"}
    give_back(log.log_path / ODD)
    healed = run(log, "show", ODD, preexec_fn=read_as_anybody)
    assert healed.returncode == 0, healed.stderr


def take_away(folder: Path) -> None:
    """Make a folder another user's, or at least unreadable where only root could."""
    folder.chmod(0o700 if os.geteuid() == 0 else 0)
    if os.geteuid() == 0:
        os.chown(folder, 12_345, 12_345)


def give_back(folder: Path) -> None:
    """Undo that."""
    if os.geteuid() == 0:
        os.chown(folder, 0, 0)
    folder.chmod(0o700)


def test_moments_of_the_fake_world_lie_within_the_limits() -> None:
    """Otherwise the tests above would pass for the wrong reason."""
    assert at(40.0) < 2**60


@pytest.mark.slow
def test_a_run_too_large_to_derive_here_is_damaged_and_the_others_are_answered(log: Store) -> None:
    """With less memory than it needs, here for a million million samples; `llem rebuild` where there is enough brings it back."""
    experiment(log)
    supervisor(log, experiment_id=ODD)
    write(log, worker_events(), role="worker", index=0, experiment_id=ODD)
    catch_up(log)
    with duckdb.connect(log.projections_path) as tables:
        tables.execute("UPDATE segments SET samples = 1_000_000_000_000 WHERE experiment_id = ?", [ODD])
    write(log, sampler_events(), role="sampler", index=0, experiment_id=ODD)
    done = run(log, "runs")
    assert done.returncode == 0, done.stderr
    assert "too large to derive here" in done.stderr
    assert EXPERIMENT in done.stdout
    assert one(log, "FROM experiments WHERE experiment_id = ?", ODD)["status"] == "damaged"
    assert run(log, "rebuild").returncode == 0
    assert result(log, ODD)["status"] == "completed"
