"""Bounds of every REST request: size of its body, how fast and how slow it may come, and how slow
a client may read."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aqaa.server.config import Settings
from aqaa.server.gateway import errors
from aqaa.server.gateway.intake import FREE_BYTES, Intake
from aqaa.server.gateway.wire import abort_of


class RequestLimits:
    """Refuses bodies that are too large (413) or too slow (408); drops clients that do not read."""

    def __init__(self, app: ASGIApp, settings: Settings, intake: Intake) -> None:
        self._app = app
        self._intake = intake
        self._most = settings.max_upload_bytes
        self._grace = settings.handshake_seconds
        self._slowest = settings.min_upload_rate
        self._stall = settings.send_stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            message = f"send the body as it is, not as {encoding.decode('latin-1')[:64]}"
            reply = errors.reply(415, "unsupported_content_encoding", message)
            await reply(scope, receive, send)
            return
        said = headers.get(b"content-length", b"0")
        if not said.isdigit() or int(said) > self._most:
            await self._too_large(scope, receive, send)
            return
        body = _Body(receive, self._intake, self._most, self._grace, self._slowest)

        async def unless_refused(message: Message) -> None:
            if not body.refused:
                await self._send(scope, send, message)

        with suppress(ClientDisconnect):
            await self._app(scope, body.receive, unless_refused)
        if body.is_too_large:
            await self._too_large(scope, receive, send)
        elif body.is_late:
            message = f"the body came slower than {self._slowest} bytes a second"
            await errors.reply(408, "request_timeout", message)(scope, receive, send)

    async def _send(self, scope: Scope, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await send(message)
        except TimeoutError:
            abort_of(scope)()

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"a body may have {self._most} bytes"
        await errors.reply(413, "body_too_large", message)(scope, receive, send)


class _Body:
    """A request's body on its way in; one that is refused looks like a client that has left."""

    def __init__(
        self, receive: Receive, intake: Intake, most: int, grace: float, slowest: int
    ) -> None:
        self._receive = receive
        self._intake = intake
        self._most = most
        self._grace = grace
        self._slowest = slowest
        self._started = time.monotonic()
        self._read = 0
        self._is_whole = False
        self.is_too_large = False
        self.is_late = False

    @property
    def refused(self) -> bool:
        return self.is_too_large or self.is_late

    async def receive(self) -> Message:
        if self.refused:
            return {"type": "http.disconnect"}
        if self._is_whole:
            return await self._receive()
        due = self._started + self._grace + self._read / self._slowest
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self.is_late = True
            return {"type": "http.disconnect"}
        self._read += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        self.is_too_large = self._read > self._most
        if self.is_too_large:
            return {"type": "http.disconnect"}
        if self._read > FREE_BYTES:
            began = time.monotonic()
            await self._intake.took(len(message.get("body", b"")))
            self._started += time.monotonic() - began  # it was not the client who was slow
        return message
