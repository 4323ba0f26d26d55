"""What the processes of a measurement say to each other, over a socket pair that keeps the edges of messages."""

import select
import socket
from typing import Any, Literal

import msgspec

from llem.plan import Plan
from llem_events.events import (
    BaselinePower,
    Device,
    DeviceSettingChanged,
    EnergyEdge,
    LoadCompleted,
    MeteredDevice,
    OtherMeter,
)

Barrier = Literal["baseline", "measurement", "after"]
MEASURING = "measuring"  # the stage from which on a run has something to show
MAX_MESSAGE_BYTES = 2**17  # below the kernel's default socket buffer
_encoder = msgspec.msgpack.Encoder()


class Message(msgspec.Struct, frozen=True, tag=True):
    """One message; the class name is its tag."""


class KnownBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """A device's idle power, and when on this host's monotonic clock an experiment measured it."""

    experiment_id: str
    measured_ns: int
    duration_s: float
    power: BaselinePower


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that an earlier experiment started and left running for the next."""

    experiment_id: str
    url: str
    pid: int
    argv: list[str]
    output: str  # the file that it writes to
    started_ns: int


class WorkerSetup(Message, frozen=True, kw_only=True):
    """Supervisor to worker: what to run."""

    experiment_id: str
    folder: str
    plan: Plan
    process_index: int
    processes: int
    torch_device: str | None
    command: list[str] = []
    known_baselines: list[KnownBaseline] = []
    # of one copy of the model that several processes run together; tokens count on rank 0 of the group only
    group_id: str | None = None
    group_rank: int | None = None
    group_size: int = 1
    # of an experiment under a server that another shares with it: the one that runs already, and whether it goes on
    running_server: RunningServer | None = None
    keeps_server: bool = False


class SamplerSetup(Message, frozen=True, kw_only=True):
    """Supervisor to sampler: what to read. `pid` is the worker's."""

    experiment_id: str
    folder: str
    plan: Plan
    process_index: int
    devices: list[Device]
    pid: int


class PassBarrier(Message, frozen=True):
    """Supervisor to worker: every living worker is at the barrier, and passes it at this moment of the host's monotonic clock."""

    barrier: Barrier
    at_ns: int = 0


class ReachBarrier(Message, frozen=True):
    """Worker to supervisor: waiting at the barrier."""

    barrier: Barrier


class EnterStage(Message, frozen=True):
    """Worker to supervisor: what it does from now on, and what it waits for and how long at most."""

    stage: str
    detail: str = ""


class ReportProgress(Message, frozen=True, kw_only=True):
    """Worker to supervisor: totals since the measurement window opened."""

    input_tokens: int
    output_tokens: int
    requests: int
    elapsed_s: float


class ReportFailure(Message, frozen=True, kw_only=True):
    """Worker or sampler to supervisor: why it ends."""

    error_type: str
    text: str
    exit_status: int


class ReportStop(Message, frozen=True):
    """Worker to supervisor: it was told to stop by a signal of this name."""

    signal_name: str


class ReportPower(Message, frozen=True):
    """Sampler to supervisor: the sum over its devices, None where nothing can be read."""

    power_w: float | None


class Finish(Message, frozen=True):
    """Supervisor to sampler: seal and end."""


class ReportServer(Message, frozen=True):
    """Worker to supervisor: the server that it leaves running for the next experiment."""

    server: RunningServer


class ReportDone(Message, frozen=True):
    """Worker to supervisor: its completion marker is on the disk. `exit_status` is the wrapped program's."""

    exit_status: int | None = None


class AnnounceMeter(Message, frozen=True, kw_only=True):
    """Sampler to worker and supervisor: what is measured, and what other meters read beside it."""

    meter: str
    devices: list[MeteredDevice]
    beside: list[OtherMeter]


class ReadEdge(Message, frozen=True):
    """Worker to sampler: read the energy counters now."""


class EdgeRead(Message, frozen=True, kw_only=True):
    """Sampler to worker: the counters at the edge, the power since the edge before, the hottest device's temperature."""

    edges: list[EnergyEdge]
    powers: list[BaselinePower]
    temperature_c: float | None


class SetDevices(Message, frozen=True, kw_only=True):
    """Supervisor to guardian: set these devices, whose files lie in `folder`."""

    folder: str
    experiment_id: str
    meter: str
    devices: list[Device]
    asked: dict[str, float]


class DevicesSet(Message, frozen=True):
    """Guardian to supervisor: what was set."""

    changes: list[DeviceSettingChanged]


class SettingRefused(Message, frozen=True):
    """Guardian to supervisor: why not; nothing is set any more."""

    text: str


class PutBackDevices(Message, frozen=True):
    """Supervisor to guardian: the measurement is over. The end of the channel means the same."""


class DevicesPutBack(Message, frozen=True):
    """Guardian to supervisor: what was put back, and what could not be."""

    changes: list[DeviceSettingChanged]
    problems: list[str]


class LoadSetup(Message, frozen=True, kw_only=True):
    """Worker to load process: which server is asked, and how."""

    experiment_id: str
    folder: str
    plan: Plan
    process_index: int
    base_url: str  # http://host:port, with or without /v1
    model: str  # as the server calls it
    body: dict[str, Any] = {}  # fields of every request beside, or instead of, those that llem sets
    api_key_env: str | None = None  # the variable that holds the key; the key itself is in no message
    # the first token id to draw and the one after the last; None: this server takes texts, no token ids
    vocabulary: tuple[int, int] | None = None


class LoadReady(Message, frozen=True, kw_only=True):
    """Load process to worker: the prompts are read, and nothing was sent yet."""

    pid: int
    prompts: int


class StartLoad(Message, frozen=True):
    """Worker to load process: offer the plan's load; that of a warm-up goes on until `EndLoad`, or for `windows.warmup_max_s`."""

    window: Literal["warmup", "measurement"]


class EndLoad(Message, frozen=True):
    """Worker to load process: send no more. With `drain`, what is in flight has `load.drain_s`; without, it is stopped now."""

    drain: bool


class LoadStarted(Message, frozen=True):
    """Load process to worker: `load_planned` is written, and request 0 is due at `at_ns` or later."""

    at_ns: int


class LoadProgress(Message, frozen=True, kw_only=True):
    """Load process to worker, a few times a second: totals since `LoadStarted`; may be missed."""

    elapsed_s: float
    requests: int  # that have ended
    failed_requests: int
    in_flight: int
    waiting: int  # due, and held back by load.max_concurrency
    input_tokens: int
    output_tokens: int  # of requests that have ended, and those counted of the others so far
    chunks: int  # those of requests in flight, too


class LoadOffered(Message, frozen=True):
    """Load process to worker: from `at_ns` on no request is due any more; what waits for the cap is sent, and what is in flight drains."""

    at_ns: int


class LoadDone(Message, frozen=True):
    """Load process to worker: every request has ended and is in the log, and so is this account."""

    account: LoadCompleted
    last_error: str | None = None  # of the request that failed last


AnyMessage = (
    WorkerSetup
    | SamplerSetup
    | PassBarrier
    | ReachBarrier
    | EnterStage
    | ReportProgress
    | ReportFailure
    | ReportStop
    | ReportPower
    | Finish
    | ReportServer
    | ReportDone
    | AnnounceMeter
    | ReadEdge
    | EdgeRead
    | SetDevices
    | DevicesSet
    | SettingRefused
    | PutBackDevices
    | DevicesPutBack
    | LoadSetup
    | LoadReady
    | StartLoad
    | EndLoad
    | LoadStarted
    | LoadProgress
    | LoadOffered
    | LoadDone
)


_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


class PeerGoneError(Exception):
    """The process at the other end has closed its channel or died."""


class Channel:
    """One end; the other end's death is an end of file."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Two connected ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def inherited(cls, fd: int) -> "Channel":
        """The end that the parent passed as a file descriptor."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd))

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send, waiting for room. Raises PeerGoneError."""
        try:
            self._socket.send(_encoder.encode(message))
        except (BrokenPipeError, ConnectionError) as error:
            raise PeerGoneError from error

    def offer(self, message: Message) -> None:
        """Send if there is room; news that can be missed, such as progress."""
        try:
            self._socket.send(_encoder.encode(message), socket.MSG_DONTWAIT)
        except OSError:
            return

    def receive(self, *, timeout_s: float | None = None) -> AnyMessage | None:
        """The next message, or None when `timeout_s` has passed. Raises PeerGoneError."""
        if not self.ready(timeout_s):
            return None
        packet = self._packet()
        if not packet:
            raise PeerGoneError
        return _decoder.decode(packet)

    def _packet(self) -> bytes:
        """The next bytes; none after the last. A peer that has closed its end without reading all of ours is told of first, and once."""
        try:
            return self._socket.recv(MAX_MESSAGE_BYTES)
        except ConnectionError:
            return self._socket.recv(MAX_MESSAGE_BYTES)

    def ready(self, timeout_s: float | None) -> bool:
        """Whether a message, or the peer's end, is there within `timeout_s`."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))

    def close(self) -> None:
        """Close this end; may be called twice."""
        self._socket.close()
