"""uvicorn's connections with the bounds and ends that they lack.

HTTP:
- A connection that sends no whole request head in time is dropped; so is one too many.
- The application finds a function in its scope that drops the connection.

WebSocket:
- A frame over the limit is answered with close code 1009, but uvicorn then closes the socket with
  the rest of the frame unread, and the reset that follows can overtake the code. Here what still
  comes is read and dropped for a moment.
- A peer that never reads would keep its connection for ever, for a close waits until all is
  written: the same function in the scope drops it.
- Pings of a peer that reads no pong would fill the memory with them, and a message of many small
  fragments with these: no pong waits behind unsent bytes, and small fragments are joined.
- A long message is read in fragments, and reaches the application in them: joining and decoding
  megabytes would hold the event loop.
- A client that uploads faster than it is heard has its pong behind its sound: it is not taken for
  gone while it sends, or while nothing is read of it.
- A handshake that cannot be read (a body, a line of more than 8 kB) got no answer and kept its
  connection for ever, and one with a header that is not ASCII was a fault: both are refused.
- The log names no path: its query may hold a key.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from aqaa.server.gateway.fragments import LONGEST, Fragmenter

ABORT = "aqaa.abort"  # key in the scope's extensions
FRAGMENTS = "aqaa.fragments"  # key in a received message, in place of `text` and `bytes`
LINGER_SECONDS = 1.0  # without data, after a refusal, until the connection is dropped
LINGER_BYTES = 64 * 1024 * 1024  # that are read and dropped at most
# Bytes that were written and have not left: what waits here can neither be overtaken nor dropped.
UNSENT_BYTES = 16 * 1024
# Bytes that one callback reads: a thousand short messages, which take 7 ms. asyncio would read
# eight times as many.
READ_BYTES = 32 * 1024


class ConnectionConfig(uvicorn.Config):
    """uvicorn's configuration, and the bounds of connections."""

    def __init__(
        self, app: ASGIApp, *, max_connections: int, handshake_seconds: float, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self.max_connections = max_connections
        self.handshake_seconds = handshake_seconds


class HttpProtocol(H11Protocol):
    """One HTTP connection of uvicorn's, which may become a WebSocket."""

    config: ConnectionConfig
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; one too many is dropped at once."""
        super().connection_made(transport)
        if len(self.connections) > self.config.max_connections:
            transport.abort()
            return
        _keep_little_unsent(transport)
        _read_little_at_once(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)

    def handle_events(self) -> None:
        """Read what has come; a whole head ends the wait for it."""
        before = self.scope
        super().handle_events()
        if self.scope is not before:
            self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}
            self._stop_waiting()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Become a WebSocket. Some proxies say that the request has a body of no bytes."""
        self.headers = [one for one in self.headers if one != (b"content-length", b"0")]
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """A response is over; what has come of the next request must become whole in time."""
        super().on_response_complete()
        waiting = self.cycle.response_complete and self.conn.trailing_data[0]
        if waiting and self._head_timer is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.config.handshake_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class RealtimeProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection of uvicorn's."""

    _dropped = 0
    _heard_since_ping = False
    _fragmenter: Fragmenter | None = None  # the handshake comes first
    frames: list[Any]  # a message's fragments: bytes, or a bytearray of several

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _WithoutPaths(logging.getLogger("uvicorn.error"))  # type: ignore[assignment]
        self.conn.debug = False  # it would log the handshake's headers, keys and all

    def handle_connect(self, event: Any) -> None:
        """Begin the application; its scope gets `ABORT`."""
        own = [v for k, v in event.headers.raw_items() if k.lower().startswith("sec-websocket-")]
        if not all(value.isascii() for value in own):
            self._refuse("the headers of a WebSocket handshake are plain ASCII")
            return
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"][ABORT] = {"abort": self.transport.abort}

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        self._heard_since_ping = True
        if self.close_sent and self.conn.parser_exc is not None:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.abort()
            self._linger()
            return
        if self._fragmenter is None:
            self._fragmenter = Fragmenter(self.config.ws_max_size)
        else:
            data = self._fragmenter.cut(data)
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_complete:
            reason = self.conn.handshake_exc.__cause__ or self.conn.handshake_exc
            self._refuse(f"the WebSocket handshake cannot be read: {reason}")

    def handle_ping(self) -> None:
        """The peer wants a pong; one that does not read them gets none (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Any) -> None:
        """More of a message; what is short is joined to what came before."""
        last = self.frames[-1]
        if max(len(last), len(event.data)) >= LONGEST:
            super().handle_cont(event)
            return
        if not isinstance(last, bytearray):
            self.frames[-1] = last = bytearray(last)
        last += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """A message is whole. One of several fragments is handed on in them."""
        if len(self.frames) < 2 or self.close_sent:
            self.frames = [bytes(one) for one in self.frames]
            super().send_receive_event_to_app()
            return
        message: Any = {"type": "websocket.receive", FRAGMENTS: self.frames}
        self.queue.put_nowait(message)
        self.frames = []
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        """What the application says; an HTTP response to the handshake completes it, too."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def send_keepalive_ping(self) -> None:
        """Ask whether the peer is there."""
        self._heard_since_ping = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """No pong came; but whoever sends is there: the pong lies behind what is not read yet."""
        if self._heard_since_ping or self.read_paused:
            assert self.ping_timeout is not None
            self._heard_since_ping = False
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()

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

    def _refuse(self, why: str) -> None:
        body = f"{why}\n".encode(errors="replace")
        head = (
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.handshake_complete = self.close_sent = True
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _linger(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)


class _WithoutPaths(logging.LoggerAdapter[logging.Logger]):
    """uvicorn's log of a connection, without the lines that repeat its path and query."""

    level = logging.INFO  # uvicorn reads it before it traces

    def info(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing: sessions have log lines of their own."""

    def exception(self, *args: Any, **kwargs: Any) -> None:
        """A fault of ours; text that is not UTF-8 is the peer's, which is told by 1007."""
        if not isinstance(sys.exc_info()[1], UnicodeDecodeError):
            super().exception(*args, **kwargs)


def _keep_little_unsent(transport: asyncio.Transport) -> None:
    transport.set_write_buffer_limits(high=UNSENT_BYTES)
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _read_little_at_once(transport: asyncio.Transport) -> None:
    assert hasattr(transport, "max_size"), "asyncio's own event loop reads so much at once"
    transport.max_size = READ_BYTES


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
