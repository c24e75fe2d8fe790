"""Time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass
class StillClock:
    """Seconds. Who sleeps wakes when it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Wait until it was moved so far; no event tells of that."""
        due = self.now + seconds
        while self.now < due:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
