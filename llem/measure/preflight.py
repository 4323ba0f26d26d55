"""What is checked before anything is started, so that a wrong input leaves nothing behind."""

import logging
import os
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llem.engines import check_engine
from llem.errors import LlemError, MeasureError, MeterError, PlanError, StoreError
from llem.load.schedule import read_trace, require_countable
from llem.measure.device_settings import check_settings
from llem.meters import MeterChoice, Vendor, driver_state, require_meter, vendor_name, vendor_of
from llem.plan import Plan
from llem.plan_file import path_of
from llem.prompts import read_prompt_set
from llem.registry import METERS, ranked_meters
from llem.servers import HOST, check_server
from llem.servers.address import Address, api_key
from llem.servers.listening import family_of, listening_pid
from llem.store import Store
from llem.versions import __version__
from llem_events import EventError, TooLargeError, envelope
from llem_events.events import Device, ExperimentStarted

logger = logging.getLogger(__name__)
MIN_FREE_BYTES = 64 * 2**20
FILES_PER_PROCESS = 4
FILES_BESIDE = 16  # the supervisor's own segment, and what is open only while a process starts
REACH_LIMIT_S = 5.0
# They read the machine, or nothing real, whatever process is measured.
METERS_OF_MACHINES = {"rapl", "simulated"}
# What only engines do.
NOT_OF_SERVERS = (
    *(("engine", key) for key in ("name", "batch_size", "parallel", "simulated")),
    *(("model", key) for key in ("weights", "config", "seed", "allow_missing", "trust_remote_code", "load")),
)
# torch reads this for every vendor.
NO_GPUS = {"CUDA_VISIBLE_DEVICES": ""}


Choice = Callable[[Sequence[Device]], Sequence[Device]]


def _all(devices: Sequence[Device]) -> Sequence[Device]:
    return devices


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one process runs: its GPUs, none of which there are on the CPU, and what its model's device is called there."""

    devices: Sequence[Device]
    # None where a program runs, which chooses its device itself.
    torch_device: str | None
    environment: dict[str, str]
    # of a server that runs already, where it can be known
    pid: int | None = None


def check(
    plan: Plan,
    store: Store,
    *,
    command: Sequence[str] = (),
    strict: bool = False,
    server_runs: bool = False,
    own: Choice = _all,
    ranks_here: int = 1,
) -> tuple[list[Placement], MeterChoice]:
    """The placement of every process, and the meter. Raises LlemError for what cannot be measured as planned.

    When strict, so is a MIG instance, whose energy nothing can measure. `server_runs`: the plan's server is one that runs already.
    Of the GPUs that are there `own` chooses those to use; `ranks_here` processes such as this one share the machine's cores.
    """
    check_plan(plan, command=command)
    placements = (
        place_server(plan, server_runs=server_runs)
        if plan.is_served
        else place(plan, command=command, own=own, ranks_here=ranks_here)
    )
    devices = [device for placement in placements for device in placement.devices]
    if strict:
        _refuse_instances(devices)
    if plan.devices.settings:
        check_settings(plan.devices.settings, devices, meter=vendor_name(plan, wraps_program=bool(command)))
    meter = require_meter(plan, devices=devices)
    _check_open_files(len(placements))
    store.create()
    _check_space(store)
    return placements, meter


def check_plan(plan: Plan, *, command: Sequence[str] = ()) -> None:
    """All of it that does not ask for GPUs, meters or a store. Raises LlemError."""
    _check_recordable(plan, command)
    _check_gpus(plan)
    if command and plan.is_served:
        raise PlanError("a server and a program", found=command[0], expected="one of them to be measured")
    if command:
        _check_program(command[0])
    else:
        _check_served(plan) if plan.is_served else check_engine(plan)
        _check_prompts(plan)


def _check_served(plan: Plan) -> None:
    """The server and its load. Raises LlemError."""
    _refuse_unused(plan)
    check_server(plan)
    if plan.server.api_key_env is not None:
        api_key(plan.server.api_key_env)
    if plan.load.kind == "trace":
        read_trace(path_of(plan.load.trace or ""))
    if plan.load.rate is not None:
        require_countable(plan.load.rate, min_duration_s=plan.workload.min_duration_s)


def _refuse_unused(plan: Plan) -> None:
    """Raises PlanError for what a plan sets of an engine, which a server has not."""
    usual = Plan()
    for section, key in NOT_OF_SERVERS:
        found = getattr(getattr(plan, section), key)
        if found != getattr(getattr(usual, section), key):
            raise PlanError(
                f"plan key {section}.{key}",
                found=msgspec.to_builtins(found),
                expected="nothing with a server, which does not get it",
                hint="say it on the server's own command line, behind --",
            )


def _check_recordable(plan: Plan, command: Sequence[str]) -> None:
    """Raises PlanError for a plan, labels or a command that the log cannot hold: they stand in one event."""
    started = ExperimentStarted(
        experiment_id="0" * 64,
        plan=msgspec.to_builtins(plan),
        measurement_config_hash="0" * 64,
        expected_processes=1,
        labels=plan.labels,
        llem_version=__version__,
        command=list(command),
    )
    try:
        envelope.pack(started, 0)
    except (TooLargeError, EventError) as error:
        raise PlanError(
            "plan, labels and command together cannot be recorded",
            found=str(error),
            hint="shorten the labels or the command",
        ) from error


def _check_gpus(plan: Plan) -> None:
    """Raises PlanError for GPUs without a name, and for GPUs of a model on the CPU."""
    named = plan.devices.gpus
    if named is None:
        return
    if not all(name.strip() for name in named):
        raise PlanError(
            "devices.gpus", found=repr(",".join(named)), expected="indices or UUIDs, separated by commas"
        )
    if plan.engine.device == "cpu":
        raise PlanError(
            "devices.gpus",
            found=f"{','.join(named)} with engine.device=cpu",
            expected="no GPUs for a model on the CPU",
            hint="leave out --gpu, or set engine.device=auto",
        )


def place(
    plan: Plan, *, command: Sequence[str] = (), own: Choice = _all, ranks_here: int = 1
) -> list[Placement]:
    """One process per GPU or group of GPUs; on the CPU, `devices.workers` processes that share its cores."""
    vendor = vendor_of(plan, wraps_program=bool(command))
    seen = _devices(plan, vendor)
    devices = own(seen)
    if command:
        # A program may use what it likes, unless GPUs were named or given to this rank: then those whose energy is read, and no others.
        is_bound = bool(plan.devices.gpus) or len(devices) < len(seen)
        return [Placement(devices, None, vendor.pin(devices) if is_bound else {})]
    if not devices:
        workers = plan.devices.workers or 1
        threads = max(1, len(os.sched_getaffinity(0)) // (workers * ranks_here))
        environment = NO_GPUS | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        return [Placement([], "cpu", environment) for _ in range(workers)]
    return [Placement(group, "cuda:0", vendor.pin(group)) for group in _groups(devices, plan)]


def place_server(plan: Plan, *, server_runs: bool = False) -> list[Placement]:
    """One worker with all GPUs of the server: those named, else all that are visible, or those that a running one holds."""
    _check_one_worker(plan)
    if plan.server.url is not None:
        return [_place_adopted(plan, Address(plan.server.url, api_key_env=plan.server.api_key_env))]
    if not server_runs:
        _check_port(plan)
    vendor = vendor_of(plan, wraps_program=False)
    devices = _devices(plan, vendor)
    return [Placement(devices, None, vendor.pin(devices) if devices else NO_GPUS)]


def _check_one_worker(plan: Plan) -> None:
    for key, found in (
        ("workers", plan.devices.workers or 1),
        ("gpus_per_worker", plan.devices.gpus_per_worker),
    ):
        if found != 1:
            raise PlanError(
                f"plan key devices.{key}", found=found, expected="1 with a server, which has all GPUs"
            )


def _check_port(plan: Plan) -> None:
    port = plan.server.port
    if port is not None and Address(f"http://{HOST}:{port}").is_open(timeout_s=1.0):
        raise MeasureError(
            f"port {port} of server.port",
            found="somebody listens there",
            expected="a free one",
            hint="leave it out",
        )


def _place_adopted(plan: Plan, address: Address) -> Placement:
    """The GPUs that are named, else those on which the server's processes are."""
    if not address.is_open(timeout_s=REACH_LIMIT_S):
        raise MeasureError(
            f"nothing answers at {address.url}",
            expected="a server that runs",
            hint="start it, or name one with --server NAME",
        )
    pid = listening_pid(address)
    vendor = vendor_of(plan, wraps_program=False)
    if plan.devices.gpus is not None:
        return Placement(_devices(plan, vendor), None, {}, pid)
    devices = [] if pid is None else _held_by(family_of(pid), plan)
    if pid is None and not METERS_OF_MACHINES & {plan.meter.name}:
        raise MeasureError(
            f"whose power is that of {address.url} cannot be known",
            found="no process of this machine that we can see listens there",
            expected="its GPUs by name",
            hint="--gpu 0,1 for a server in a container or of another user; one on another machine is measured there",
        )
    return Placement(devices, None, {}, pid)


def _held_by(family: set[int], plan: Plan) -> list[Device]:
    """The GPUs on which these processes are; none where no driver tells."""
    for name in [plan.meter.name] if plan.meter.name in METERS else ranked_meters():
        if METERS[name].gpus != "real":
            continue
        try:
            gpus = driver_state(name).gpus
        except LlemError:
            continue
        if held := [gpu.device for gpu in gpus if family & set(gpu.process_ids or ())]:
            return held
    return []


def _groups(gpus: Sequence[Device], plan: Plan) -> list[Sequence[Device]]:
    """GPUs by process; more workers than groups share GPUs in turn."""
    size = plan.devices.gpus_per_worker
    if len(gpus) % size:
        raise PlanError(
            "devices.gpus_per_worker",
            found=f"{size} for {len(gpus)} GPUs",
            expected="a divisor of the number of GPUs",
        )
    groups = [gpus[first : first + size] for first in range(0, len(gpus), size)]
    workers = plan.devices.workers or len(groups)
    return [groups[number % len(groups)] for number in range(workers)]


def _devices(plan: Plan, vendor: Vendor) -> list[Device]:
    """The GPUs to use; none where none was asked for and none can be read."""
    named = plan.devices.gpus
    if plan.engine.device == "cpu":
        return []
    try:
        return vendor.resolve_gpus(named)
    except MeterError:
        if named is not None or plan.engine.device.startswith("cuda") or _needs_gpus(plan):
            raise
        return []


def _needs_gpus(plan: Plan) -> bool:
    """Whether the plan names a meter that reads nothing but GPUs."""
    return any(METERS[name].needs_gpus for name in plan.meter.names if name in METERS)


def _refuse_instances(devices: Sequence[Device]) -> None:
    instances = [device for device in devices if device.kind == "mig"]
    if instances:
        raise MeasureError(
            "the energy of a MIG instance cannot be measured",
            found=f"{instances[0].uuid} on {instances[0].parent_uuid}",
            expected="whole GPUs with --strict",
            hint="without --strict, the whole GPU's energy is recorded, with a warning",
        )


def _check_prompts(plan: Plan) -> None:
    prompt_set = read_prompt_set(plan)
    for note in prompt_set.notes:
        logger.warning("%s", note)
    prompts = prompt_set.prompts
    workers = plan.devices.workers or 1
    if len(prompts) < workers:
        raise PlanError(
            "workload.requests", found=f"{len(prompts)} for {workers} workers", expected="at least one each"
        )


def _check_program(program: str) -> None:
    if shutil.which(program) is None:
        raise MeasureError(
            "program to measure", found=program, expected="an executable file or a name on PATH"
        )


def _check_open_files(processes: int) -> None:
    """Each process and its sampler cost the supervisor a channel and a file for their last words."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sum(1 for _ in Path("/dev/fd").iterdir()) + FILES_PER_PROCESS * processes + FILES_BESIDE
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise MeasureError(
            f"open files for {processes} processes",
            found=f"a limit of {limit}",
            expected=f"at least {needed}",
            hint=f"ulimit -n {needed}, or fewer --workers",
        )


def _check_space(store: Store) -> None:
    free_bytes = shutil.disk_usage(store.path).free
    if free_bytes < MIN_FREE_BYTES:
        raise StoreError(
            f"disk of store {store.path} is nearly full",
            found=f"{free_bytes / 2**20:.0f} MiB free",
            expected=f"at least {MIN_FREE_BYTES / 2**20:.0f} MiB",
            hint="free some space, or name another folder with --store",
        )
