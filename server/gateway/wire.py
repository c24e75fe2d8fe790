"""uvicorn's WebSocket protocol with two ends that it lacks: a clean refusal and a hard stop.

- A frame over the limit is answered with close code 1009, but uvicorn then closes the socket with
  the rest of the frame unread, and the reset that follows can overtake the code. Here what still
  comes is read and dropped for a moment.
- A peer that never reads would keep its connection for ever, for a close waits until all is
  written. Here the application finds a function in its scope that drops the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT = "aqaa.abort"  # key in the scope's extensions
LINGER_SECONDS = 1.0  # without data, after a refusal, until the connection is dropped
LINGER_BYTES = 64 * 1024 * 1024  # that are read and dropped at most


class RealtimeProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection of uvicorn's."""

    _dropped = 0

    def handle_connect(self, event: Any) -> None:
        """Begin the application; its scope gets `ABORT`."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][ABORT] = {"abort": self.transport.abort}

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self.close_sent and self.conn.parser_exc is not None:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.abort()
            self._linger()
            return
        super().data_received(data)

    def handle_parser_exception(self) -> None:
        """The peer broke the protocol, or a limit: say so with a close code, then read it out."""
        closing = self.conn.close_sent
        assert closing is not None
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        self.transport.resume_reading()
        self._linger()

    def _linger(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)


def abort_of(scope: Any) -> Callable[[], None]:
    """The function that drops this scope's connection; does nothing under another server."""
    extension = scope.get("extensions", {}).get(ABORT)
    return extension["abort"] if extension else _nothing


def _nothing() -> None:
    """Another ASGI server closes in its own way."""


async def close_or_abort(close: Any, scope: Any, seconds: float) -> None:
    """Await `close`; if the peer does not take it in time, drop the connection."""
    try:
        async with asyncio.timeout(seconds):
            await close
    except TimeoutError:
        abort_of(scope)()
