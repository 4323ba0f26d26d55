"""The guardian: a process in a session of its own that sets devices for a run, and puts them back when the run is over, however it ends.

It is started before anything is changed, heeds no signal, and ends with the other end of its channel, which its run alone holds. Where it
is killed too, the files of `llem.measure.device_settings` say what is to be put back.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from llem.errors import LlemError, MeasureError
from llem.measure.children import held_back
from llem.measure.device_settings import DeviceSettings, PutBack, put_back_left
from llem.measure.messages import (
    AnyMessage,
    Channel,
    DevicesPutBack,
    DevicesSet,
    Message,
    PeerGoneError,
    PutBackDevices,
    SetDevices,
    SettingRefused,
)
from llem_events.events import Device, DeviceSettingChanged

ANSWER_S = 30.0  # a driver that is loaded for it takes seconds
END_LIMIT_S = 5.0


class Guardian:
    """Our end of a guardian's channel. Closed, everything is put back."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._channel, theirs = Channel.pair()
        with held_back():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llem.measure.guardian", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        theirs.close()

    def set(
        self,
        asked: Mapping[str, float],
        devices: Sequence[Device],
        *,
        meter: str,
        folder: Path,
        experiment_id: str,
    ) -> list[DeviceSettingChanged]:
        """Raises MeasureError where a device refuses; then nothing is set."""
        self._folder = folder
        answer = self._tell(
            SetDevices(
                folder=str(folder.absolute()),
                experiment_id=experiment_id,
                meter=meter,
                devices=list(devices),
                asked=dict(asked),
            )
        )
        match answer:
            case DevicesSet(changes):
                return changes
            case SettingRefused(text):
                raise MeasureError(text)
        raise MeasureError("the guardian of the devices' settings is gone", hint="was it killed?")

    def put_back(self) -> PutBack:
        """The devices are as they were before; what is not has its reason. Where the guardian was killed, we do its work."""
        match self._tell(PutBackDevices()):
            case DevicesPutBack(changes, problems):
                return PutBack(changes=changes, problems=problems)
        return PutBack() if self._folder is None else put_back_left(self._folder)

    def close(self) -> None:
        """Let go of it, and wait until it has done its work."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_LIMIT_S)

    def _tell(self, message: Message) -> AnyMessage | None:
        try:
            self._channel.send(message)
            return self._channel.receive(timeout_s=ANSWER_S)
        except PeerGoneError:
            return None


@contextmanager
def guardian() -> Iterator[Guardian]:
    """A guardian for the length of a block."""
    started = Guardian()
    try:
        yield started
    finally:
        started.close()


def _guard(channel: Channel) -> None:
    """The guardian's own life, until the channel's other end is closed."""
    settings: DeviceSettings | None = None
    try:
        while True:
            match channel.receive():
                case SetDevices() as order:
                    settings = DeviceSettings(Path(order.folder))
                    channel.send(_set(settings, order))
                case PutBackDevices():
                    done = settings.put_back() if settings else PutBack()
                    channel.send(DevicesPutBack(done.changes, done.problems))
    except PeerGoneError:
        pass
    finally:
        if settings is not None:
            settings.put_back()


def _set(settings: DeviceSettings, order: SetDevices) -> Message:
    try:
        changes = settings.change(
            order.asked, order.devices, meter=order.meter, experiment_id=order.experiment_id
        )
    except (LlemError, OSError) as error:
        settings.put_back()
        return SettingRefused(str(error))
    return DevicesSet(changes)


if __name__ == "__main__":
    _guard(Channel.inherited(int(sys.argv[1])))
