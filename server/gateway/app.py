"""The application: routes, the demo page, and what stands before them."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from aqaa.server.gateway import errors, transcriptions
from aqaa.server.gateway.origins import ForwardedHeaders
from aqaa.server.gateway.request_limits import RequestLimits
from aqaa.server.gateway.request_line import RequestLine
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
        root_path=server.settings.root_path,
    )
    app.state.server = server
    errors.install(app)
    app.include_router(open_router, tags=["operations"])
    app.include_router(router, tags=["conversation"])
    app.include_router(transcriptions.router, tags=["transcription"])

    @app.websocket("/v1/realtime")
    async def websocket(socket: WebSocket) -> None:
        await realtime(socket, server)

    @app.websocket("/{path:path}")
    async def wrong_path(socket: WebSocket, path: str) -> None:
        message = f"no WebSocket at /{path[:100]}: conversations are at /v1/realtime"
        await socket.send_denial_response(errors.reply(404, "not_found", message))

    app.mount("/", StaticFiles(directory=page_directory(), html=True), name="page")
    settings = server.settings
    app.add_middleware(RequestLimits, settings=settings, intake=server.intake)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's clients send a dozen of their own
            expose_headers=["x-transcript"],
        )
    if settings.trusted_proxies:
        app.add_middleware(ForwardedHeaders, trusted=settings.trusted_proxies)
    app.add_middleware(RequestLine)
    return app


def page_directory() -> Path:
    """Where the demo page's files lie: beside the client's modules, none of which is imported.

    (`importlib.resources` cannot read a namespace package that is installed editable.)
    """
    spec = find_spec("aqaa.clients.client")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "web"
