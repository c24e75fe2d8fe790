"""How long one callback holds an event loop: what every other session on it would wait for."""

from __future__ import annotations

from asyncio.events import Handle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from own_time import own_time

_run = Handle._run


class LoopWatch:
    """Times each callback on its own, so that many sessions' short turns are not one long one.

    Time in which the loop's thread waited for a CPU does not count: other programs took it.
    """

    def __init__(self) -> None:
        self.longest = 0.0  # seconds of the longest callback
        self.which = ""  # that was

    def run(self, callback: Handle) -> None:
        """Run one callback."""
        began = own_time()
        _run(callback)
        if (took := own_time() - began) > self.longest:
            self.longest, self.which = took, repr(callback)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[LoopWatch]:
    """Watch the running loop, the only one of the process, within the block."""
    watch = LoopWatch()
    Handle._run = lambda callback: watch.run(callback)  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        Handle._run = _run  # type: ignore[method-assign]
