"""The application: routes, the demo page, bounds on bodies."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from aqaa.server.gateway import errors
from aqaa.server.gateway.chat import Remembered
from aqaa.server.gateway.rest import open_router, router
from aqaa.server.gateway.state import ServerState
from aqaa.server.gateway.websocket import realtime


def create_app(server: ServerState) -> FastAPI:
    """The ASGI application of one server."""
    app = FastAPI(
        title="aqaa",
        version=version("aqaa"),
        description="Spoken conversations: OpenAI Realtime over a WebSocket at `/v1/realtime`, "
        "and spoken answers over REST.",
    )
    app.state.server = server
    app.state.remembered = Remembered()
    errors.install(app)
    app.include_router(open_router, tags=["operations"])
    app.include_router(router, tags=["conversation"])

    @app.websocket("/v1/realtime")
    async def websocket(socket: WebSocket) -> None:
        await realtime(socket, server)

    app.mount("/", StaticFiles(directory=page_directory(), html=True), name="page")
    app.add_middleware(BodyLimit, most=server.settings.max_upload_bytes)
    if server.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.settings.allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["x-transcript"],
        )
    return app


def page_directory() -> Path:
    """Where the demo page's files lie: beside the client's modules, none of which is imported.

    (`importlib.resources` cannot read a namespace package that is installed editable.)
    """
    spec = find_spec("aqaa.clients.client")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "web"


class BodyLimit:
    """Refuses request bodies over a size, said or found, with 413."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > self._most:
            await self._refuse(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message if read <= self._most else {"type": "http.disconnect"}

        async def unless_too_large(message: Message) -> None:
            if read <= self._most:
                await send(message)

        try:
            await self._app(scope, counted, unless_too_large)
        except ClientDisconnect:
            if read <= self._most:
                raise
        if read > self._most:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"a body may have {self._most} bytes"
        response: JSONResponse = errors.reply(413, "body_too_large", message)
        await response(scope, receive, send)
