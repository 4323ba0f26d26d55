"""The wish to stop: SIGTERM sets it, the engine asks for it at every token step."""

import signal
import types


class StopFlag:
    """Set by SIGTERM, for as long as the process runs."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, number: int, frame: types.FrameType | None) -> None:
        self.is_set = True

    def __call__(self) -> bool:
        return self.is_set
