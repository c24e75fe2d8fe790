"""Bodies that come faster than anybody speaks give way to answers that somebody waits for.

Each 64 kB of a body take the event loop a third of a millisecond, and hold the interpreter, which a
chunk of sound needs a thousand times. Megabytes that came at once made a first sound 0.1 s later;
a moment later they harm nobody.

Messages of a conversation do not wait: what its client says next (that it cancels, or has left)
stands behind them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

FREE_BYTES = 256 * 1024  # of each body: a short question, which is read at once
WAITING_RATE = 2 * 1024 * 1024  # bytes a second of all bodies together, while somebody waits
LOOK_AGAIN_SECONDS = 0.02  # whether somebody still does


class Intake:
    """One server's."""

    def __init__(
        self,
        unheard: Collection[object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`unheard`: answers that somebody waits for now. `clock` tells seconds."""
        self._unheard = unheard
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def took(self, size: int) -> None:
        """So many more bytes of a long body came; wait until more may, each body in its turn."""
        async with self._turn:
            due = self._clock() + size / WAITING_RATE
            while self._unheard and (left := due - self._clock()) > 0:
                await self._sleep(min(left, LOOK_AGAIN_SECONDS))
