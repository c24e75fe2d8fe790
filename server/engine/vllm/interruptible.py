"""Reads that a watchdog ends: one task a request, and no timer a read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

GRACE_SECONDS = 0.02  # after a stall of the event loop, what has arrived meanwhile is read first


class InterruptibleReads:
    """Awaits one thing after the other, in one task, until `interrupt` is called from another."""

    def __init__(self) -> None:
        self._fault: Exception | None = None
        self._limit: asyncio.Timeout | None = None  # of the read in progress

    async def wait(self, coming: Awaitable[T]) -> T:
        """What comes.

        Raises:
            Exception: the one that `interrupt` was given; and whatever `coming` raises.
        """
        try:
            async with asyncio.timeout(None) as self._limit:
                if self._fault is not None:
                    self._limit.reschedule(0)
                return await coming
        except TimeoutError:
            if self._fault is None:
                raise
            raise self._fault from None
        finally:
            self._limit = None

    def interrupt(self, fault: Exception) -> None:
        """Let the read in progress raise `fault`, and each further one."""
        self._fault = fault
        if self._limit is not None:
            self._limit.reschedule(0)
