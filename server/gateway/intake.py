"""What clients send faster than anybody speaks gives way to answers that somebody waits for.

Each 64 kB of a body or a message take the event loop a third of a millisecond, and hold the
interpreter, which a chunk of sound needs a thousand times. Megabytes that come at once made a first
sound 0.1 s later; a moment later they harm nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

LIVE_RATE = 512 * 1024  # bytes a second: pcm16 at 192 kHz, the most that a microphone sends
LIVE_BYTES = 256 * 1024  # that may come at once: a microphone's after the link was down
WAITING_RATE = 2 * 1024 * 1024  # bytes a second of all the rest, while somebody waits
LOOK_AGAIN_SECONDS = 0.02  # whether somebody still does


class Intake:
    """One server's: all that is sent faster than live."""

    def __init__(
        self,
        unheard: Collection[object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`unheard`: answers that somebody waits for now. `clock` tells seconds."""
        self.clock = clock
        self._unheard = unheard
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def give_way(self, size: int) -> None:
        """So many bytes came; wait until more may, in the order in which they came."""
        async with self._turn:
            due = self.clock() + size / WAITING_RATE
            while self._unheard and (left := due - self.clock()) > 0:
                await self._sleep(min(left, LOOK_AGAIN_SECONDS))


class Inflow:
    """One connection's or request's bytes."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._free = float(LIVE_BYTES)
        self._counted = intake.clock()

    async def took(self, size: int) -> None:
        """So many bytes were read; returns when more may be."""
        now = self._intake.clock()
        self._free = min(LIVE_BYTES, self._free + (now - self._counted) * LIVE_RATE)
        self._counted = now
        self._free, over = max(0.0, self._free - size), max(0.0, size - self._free)
        if over:
            await self._intake.give_way(round(over))
