"""Where a session's events go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aqaa.server.protocol.server_events import ServerEvent


class Outlet(Protocol):
    """Takes events to the client (`gateway.outlet.OutboxOutlet`). Neither method waits."""

    def send(self, event: ServerEvent, left: Callable[[], None] | None = None, /) -> None:
        """Send an event; `left` is called once it is on its way."""

    def room(self) -> int:
        """How many bytes more may wait until they are read; with more, the client is closed."""

    def drop(self, item_id: str, /) -> None:
        """Forget what waits of this answer."""
