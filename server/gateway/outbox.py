"""Events on their way to one client.

Bounded, so that a reader who never reads costs little. Sound waits here, not in the socket's
buffers: what an interruption makes void is dropped, and what else is to be said overtakes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outgoing:
    """One message. `delta_of`: the item of which it is a piece, if it is one; others are whole."""

    text: str
    delta_of: str | None = None
    left: Callable[[], None] | None = None


class Outbox:
    """A queue of messages that never makes the sender wait; too much unread closes it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._messages: deque[Outgoing] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflowed = asyncio.Event()

    def put(self, message: Outgoing, *, urgent: bool = False) -> None:
        """Add a message; after an overflow messages are dropped, for nobody will get them.

        An urgent one goes before the deltas that wait at the end, never before a whole message.
        """
        if self.overflowed.is_set():
            return
        self._bytes += len(message.text)
        if self._bytes > self._most:
            self._messages.clear()
            self.overflowed.set()
            return
        place = len(self._messages)
        while urgent and place and self._messages[place - 1].delta_of is not None:
            place -= 1
        self._messages.insert(place, message)
        self._drained.clear()
        self._more.set()

    def room(self) -> int:
        """How many bytes more it takes."""
        return self._most - self._bytes

    def drop(self, item_id: str) -> None:
        """Take out the deltas of this item: nobody will hear or read them."""
        gone = [message for message in self._messages if message.delta_of == item_id]
        if gone:
            kept = (message for message in self._messages if message.delta_of != item_id)
            self._messages = deque(kept)
            self._discount(sum(len(message.text) for message in gone))

    async def get(self) -> Outgoing:
        """The next message. It counts as unread until `sent`."""
        while not self._messages:
            self._more.clear()
            await self._more.wait()
        return self._messages.popleft()

    def sent(self, message: Outgoing) -> None:
        """The message that `get` gave has left."""
        self._discount(len(message.text))
        if message.left is not None:
            message.left()

    async def drained(self) -> None:
        """Wait until everything has left."""
        await self._drained.wait()

    def _discount(self, size: int) -> None:
        self._bytes -= size
        if not self._bytes:
            self._drained.set()
