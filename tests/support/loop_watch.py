"""How long an event loop is held: what every other session on it would wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from own_time import own_time

BEAT = 0.005  # seconds


class LoopWatch:
    """Beats on the loop, and notes by how much a beat was late.

    Time in which the loop's thread waited for a CPU does not count: other programs took it.
    """

    def __init__(self) -> None:
        self.longest = 0.0  # seconds that the loop was held, at most
        self.beats = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        before = own_time()
        while True:
            await asyncio.sleep(BEAT)
            now = own_time()
            self.longest = max(self.longest, now - before - BEAT)
            self.beats += 1
            before = now


@asynccontextmanager
async def watched_loop() -> AsyncIterator[LoopWatch]:
    """Watch the running loop within the block."""
    watch = LoopWatch()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
