"""The REST routes. Health and metrics are open; all else wants a key, where keys are configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from aqaa.models.errors import ModelNotFoundError, OriginError
from aqaa.server.answering.single_answer import (
    check_answered,
    single_answer,
    tokenise_recording,
)
from aqaa.server.dialogue.prompt import SystemTurn, Turn, UserTurn
from aqaa.server.gateway import errors
from aqaa.server.gateway.admission import Caller, bearer
from aqaa.server.gateway.chat import Collected, Completion
from aqaa.server.gateway.chat_request import understand
from aqaa.server.gateway.disconnect import unless_left
from aqaa.server.gateway.encode import check_container, encode, media_type
from aqaa.server.gateway.json_input import off_the_loop, parse_json
from aqaa.server.gateway.origins import origin_is_ours, refusal
from aqaa.server.gateway.schema import ChatRequest, ClientSecretRequest
from aqaa.server.gateway.state import ServerState
from aqaa.server.gateway.upload import recording_of
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.transcription_types import shown
from aqaa.server.protocol.types import Json

NO_STORE = {"Cache-Control": "no-store"}
STREAM = {**NO_STORE, "X-Accel-Buffering": "no"}  # nginx would collect the events first
TRANSCRIPT_BYTES = 4000  # of the header: some clients take no line above 8 kB

ANSWER_BODY = {
    "requestBody": {
        "required": True,
        "description": "The recorded question: as a multipart `file`, or as the body itself.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
ANSWER_REPLY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The spoken answer.",
        "content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Transcript": {
                "description": "The answer's text, percent-encoded where it is not plain ASCII.",
                "schema": {"type": "string"},
            }
        },
    }
}


def _state(request: Request) -> ServerState:
    state = request.app.state.server
    assert isinstance(state, ServerState)
    return state


async def _server(request: Request) -> ServerState:  # what does not wait: else it gets a thread
    return _state(request)


Server = Annotated[ServerState, Depends(_server)]


def _admitted(request: Request, server: ServerState) -> Caller:
    if not origin_is_ours(request, server.settings):
        raise OriginError(refusal(request.headers["origin"]))
    return server.keys.check_key(bearer(request.headers))


async def _caller(request: Request, server: Server) -> Caller:
    return _admitted(request, server)


class _LongRequest(Request):
    """A request whose body is put together, and its JSON parsed with bounds, in a thread if it is
    long: megabytes would hold the event loop."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            pieces = [piece async for piece in self.stream()]
            self._body = await off_the_loop(sum(map(len, pieces)), b"".join, pieces)
        return self._body

    async def json(self) -> Any:
        body = await self.body()
        try:
            return await off_the_loop(len(body), parse_json, body)
        except ProtocolError as error:
            raise HTTPException(400, str(error)) from None


class _KeyFirst(APIRoute):
    """A route that refuses whoever may not come in before it reads a body.

    A body that has to be JSON is read as JSON whatever it is said to be: `curl -d` says it is a
    form.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_json = self.body_field is not None

        async def admit(request: Request) -> Response:
            _admitted(request, _state(request))
            scope = _as_json(request.scope) if takes_json else request.scope
            return await handle(_LongRequest(scope, request.receive))

        return admit


def _as_json(scope: Scope) -> Scope:
    headers = [one for one in scope["headers"] if one[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


router = APIRouter(route_class=_KeyFirst)
open_router = APIRouter()

Whoever = Annotated[Caller, Depends(_caller)]


@open_router.get("/health/live", summary="Whether the process runs")
async def live() -> Json:
    """Always 200 while the server runs."""
    return {"status": "ok"}


@open_router.get("/health/ready", summary="Whether new sessions are served, and which part is down")
async def ready(server: Server) -> JSONResponse:
    """200 if every part is up, else 503; the body names each part either way."""
    parts = server.part_status()
    well = all(status == "up" for status in parts.values())
    body = {"status": "ready" if well else "not ready", "parts": parts}
    return JSONResponse(body, 200 if well else 503)


@open_router.api_route("/v1/realtime", methods=["GET", "POST"], include_in_schema=False)
async def no_websocket() -> JSONResponse:
    """Where a proxy drops the headers of a handshake, and for clients of WebRTC."""
    message = (
        "conversations are WebSockets (ws:// or wss://) and this is a plain request: if a proxy is"
        " on the way, have it pass the headers Upgrade and Connection; there is no WebRTC here"
    )
    reply = errors.reply(426, "upgrade_required", message)
    reply.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
    return reply


@open_router.get("/metrics", summary="Prometheus metrics")
async def metrics(server: Server) -> Response:
    """The text exposition format."""
    return Response(server.parts.services.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _model(server: ServerState) -> Json:
    name = server.parts.bundle.name
    return {"id": name, "object": "model", "created": server.started, "owned_by": "aqaa"}


@router.get("/v1/models", summary="The model that is served")
async def models(server: Server, _: Whoever) -> Json:
    """One: a server serves one bundle, under the bundle's name."""
    return {"object": "list", "data": [_model(server)]}


@router.get("/v1/models/{name}", summary="One model")
async def model(name: str, server: Server, _: Whoever) -> Json:
    """404 for any but the served one."""
    _check_model(server, name)
    return _model(server)


@router.get("/v1/voices", summary="The bundle's voices")
async def voices(server: Server, _: Whoever) -> Json:
    """Names for `voice`; OpenAI's own names mean the default one."""
    known = server.parts.voices
    data = [
        {"id": name, "object": "voice", "name": name, "default": name == known.default}
        for name in known.names
    ]
    return {"object": "list", "data": data}


@router.post("/v1/realtime/client_secrets", summary="An ephemeral key for a browser")
async def client_secrets(
    server: Server, caller: Whoever, body: ClientSecretRequest, response: Response
) -> Json:
    """The secret opens sessions, with these settings, until it expires."""
    response.headers.update(NO_STORE)
    session = await server.new_session(body.session.get("type") or "realtime", body.session)
    seconds = body.expires_after.seconds
    value, expires_at = server.keys.make_secret(caller.name, seconds, body.session)
    return {"value": value, "expires_at": expires_at, "session": shown(session).model_dump()}


@router.post("/v1/chat/completions", summary="A spoken or written answer to a conversation")
async def chat_completions(
    request: ChatRequest,
    connection: Request,
    server: Server,
    caller: Whoever,
) -> Response:
    """OpenAI's audio shape; `stream: true` gives `chat.completion.chunk`s with `delta.audio`."""
    _check_model(server, request.model)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.place(caller))
        understanding = understand(server.parts, request, server.store)
        wanted = await unless_left(connection, understanding)
        completion = Completion(server.parts, request, wanted)
        if not request.stream:
            return JSONResponse(await unless_left(connection, completion.whole(server.store)))
        return HeldStream(completion.stream(server.store), stack.pop_all())


class HeldStream(StreamingResponse):
    """A stream of events that keeps its place until it has ended, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], place: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers=STREAM)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        async with self._place:
            await super().__call__(scope, receive, send)


@router.post(
    "/v1/answer",
    summary="A recorded question in, a spoken answer out",
    openapi_extra=ANSWER_BODY,
    responses=ANSWER_REPLY,
    response_class=Response,
)
async def answer(
    request: Request,
    server: Server,
    caller: Whoever,
    voice: Annotated[str, Query(description="empty: the bundle's default")] = "",
    speed: Annotated[float, Query(ge=0.5, le=2.0)] = 1.0,
    format: Annotated[str, Query(description="wav, mp3, flac, opus or pcm16")] = "wav",
    instructions: Annotated[str, Query(description="a system prompt")] = "",
) -> Response:
    """`curl --data-binary @question.wav -o answer.wav http://localhost:8000/v1/answer`."""
    parts = server.parts
    container = check_container(format)
    name = parts.voices.find(voice, "voice")
    if instructions:
        await asyncio.to_thread(parts.limits().check_instructions, instructions, "instructions")
    system = instructions or parts.bundle.decoder.system_prompt
    recording = await recording_of(request)  # before a place is taken: it may come slowly

    async def whole() -> tuple[str, bytes]:
        tokens = await tokenise_recording(parts, recording)
        turns: list[Turn] = [SystemTurn(system)] if system else []
        turns.append(UserTurn((tokens,)))
        got = Collected()
        async with single_answer(parts, turns, voice=name, spoken=True, speed=speed) as said:
            while got.over is None:
                got.take(await said.next())
        check_answered(got.over)
        return got.text, await asyncio.to_thread(encode, b"".join(got.pcm), container)

    async with server.place(caller):
        text, file = await unless_left(request, whole())
    headers = {"X-Transcript": _header(text), **NO_STORE}
    return Response(file, media_type=media_type(container), headers=headers)


def _header(text: str) -> str:
    """The text, percent-encoded where it is not plain ASCII, as far as a header may hold it.

    Without the spaces at its ends, which no header may have.
    """
    pieces, size = [], 0
    for character in text:
        piece = quote(character, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
        size += len(piece)
        if size > TRANSCRIPT_BYTES:
            break
        pieces.append(piece)
    return "".join(pieces).strip(" ")


def _check_model(server: ServerState, name: str) -> None:
    if name != server.parts.bundle.name:
        raise ModelNotFoundError(f"no model {name!r} here; it is {server.parts.bundle.name!r}")
