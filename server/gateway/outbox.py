"""Events on their way to one client: bounded, so that a reader who never reads costs little."""

from __future__ import annotations

import asyncio
from collections import deque


class Outbox:
    """A queue of messages that never makes the sender wait; too much unread closes it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._messages: deque[str] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflowed = asyncio.Event()

    def put(self, message: str) -> None:
        """Add a message; after an overflow messages are dropped, for nobody will get them."""
        if self.overflowed.is_set():
            return
        self._bytes += len(message)
        if self._bytes > self._most:
            self._messages.clear()
            self.overflowed.set()
            return
        self._messages.append(message)
        self._drained.clear()
        self._more.set()

    async def get(self) -> str:
        """The next message. It counts as unread until `sent`."""
        while not self._messages:
            self._more.clear()
            await self._more.wait()
        return self._messages.popleft()

    def sent(self, message: str) -> None:
        """The message that `get` gave has left."""
        self._bytes -= len(message)
        if not self._bytes:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until everything has left."""
        await self._drained.wait()
