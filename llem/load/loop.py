"""An event loop whose timers are right to some ten microseconds: asyncio's own wait whole milliseconds, so that arrivals come in bursts."""

import asyncio
import select
import selectors

MARGIN_S = 0.002  # of a wait, that is left to the finer way


class PreciseSelector(selectors.EpollSelector):
    """Waits in epoll, whose timeouts are milliseconds rounded up, until shortly before the time, and the rest in select."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns early, with nothing, before a wait's last part."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if timeout > MARGIN_S:
            return super().select(timeout - MARGIN_S)
        select.select([self], [], [], timeout)
        return super().select(0)


def new_loop() -> asyncio.AbstractEventLoop:
    """For `asyncio.Runner`."""
    return asyncio.SelectorEventLoop(PreciseSelector())
