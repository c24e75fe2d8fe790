"""Time, passed in: everything that waits or measures gets a clock, and tests give their own."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in seconds."""

    def __call__(self) -> float:
        """Now."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""


class MonotonicClock:
    """The machine's."""

    def __call__(self) -> float:
        """Now."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""
        await asyncio.sleep(seconds)
