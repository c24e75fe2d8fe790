"""Answers requests while the models load: alive, not ready, and which part is missing."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from aqaa.server.gateway import errors
from aqaa.server.gateway.admission import offered
from aqaa.server.gateway.state import PARTS, PartStatus
from aqaa.server.protocol.close_codes import TRY_LATER
from aqaa.server.protocol.types import Json

LOADING = "the server is still loading its models; try again soon"


class Entrance:
    """An ASGI application that answers until the real one is ready, and then forwards to it."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._parts: dict[str, PartStatus] = dict.fromkeys(PARTS, "loading")

    def loaded(self, part: str) -> None:
        """One of `PARTS` is loaded."""
        self._parts[part] = "up"

    def open(self, app: ASGIApp) -> None:
        """Forward everything to `app` from now on."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Sent on an open socket: a browser cannot read a failed handshake.
            socket = WebSocket(scope, receive, send)
            await socket.accept(subprotocol=offered(scope["subprotocols"])[1])
            await socket.close(TRY_LATER, LOADING)
        else:
            await self._reply(scope["path"])(scope, receive, send)

    def _reply(self, path: str) -> JSONResponse:
        match path:
            case "/health/live":
                return JSONResponse({"status": "ok"})
            case "/health/ready":
                body: Json = {"status": "not ready", "parts": self._parts}
                return JSONResponse(body, 503)
            case _:
                return errors.reply(503, "server_loading", LOADING)
