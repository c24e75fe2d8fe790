"""Faults of REST requests, in OpenAI's shape: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route

from aqaa.models.errors import (
    AqaaError,
    AudioError,
    CallError,
    CapacityError,
    EngineBusyError,
    EngineError,
    InputError,
    ModelNotFoundError,
    NoSpeechError,
    OriginError,
    PromptError,
    StoreError,
    UnauthorizedError,
)
from aqaa.server.answering.error_code import INVALID_CALL
from aqaa.server.protocol.errors import PARAM_LENGTH, ProtocolError, told_of
from aqaa.server.protocol.limits import NO_SPEECH

log = logging.getLogger(__name__)

CLIENT_LEFT = 499  # nginx's status for it
HTTP_CODES = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
MESSAGE_LENGTH = 2000  # characters: what a client calls its voices may be of any length
RETRY_SECONDS = "1"  # a place is freed when an answer ends, which takes seconds


def reply(
    status: int, code: str, message: str, *, param: str | None = None, kind: str = ""
) -> JSONResponse:
    """An error's response."""
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    param = None if param is None else param[:PARAM_LENGTH]
    said = message if len(message) <= MESSAGE_LENGTH else f"{message[:MESSAGE_LENGTH]}..."
    body = {"error": {"message": said, "type": kind, "param": param, "code": code}}
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else None
    return JSONResponse(body, status, headers)


def answer_for(error: Exception) -> Response:
    """What a client is told of a fault: its own are 4xx, ours are 5xx and in the log."""
    message = str(error)
    match error:
        case ClientDisconnect():
            return Response(status_code=CLIENT_LEFT)  # nobody reads it
        case UnauthorizedError():
            return reply(401, "invalid_api_key", message, kind="authentication_error")
        case OriginError():
            return reply(403, "origin_not_allowed", message)
        case ModelNotFoundError():
            return reply(404, "model_not_found", message, param="model")
        case ProtocolError():
            return reply(400, error.code, message, param=error.param)
        case PromptError():
            return reply(400, "context_length_exceeded", message, param="messages")
        case NoSpeechError():
            return reply(400, NO_SPEECH, message)
        case AudioError():
            return reply(400, "invalid_audio", message)
        case InputError():
            return reply(400, "invalid_value", message)
        case StoreError():
            return reply(503, "store_unavailable", message)
        case CapacityError() | EngineBusyError():
            return reply(503, "server_full", message)
        case CallError():  # what the model gave is of no use: clients ask again by themselves
            return reply(502, INVALID_CALL, message)
        case EngineError():
            return reply(500, "engine_error", message)
        case _:
            log.error("a request failed for a reason that is a bug", exc_info=error)
            return reply(500, "internal_error", "the server made a mistake; it is in its log")


def install(app: FastAPI) -> None:
    """Have the application answer all faults so."""

    async def ours(_: Request, error: Exception) -> Response:
        return answer_for(error)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()
        faults: list[Any] = [{**fault, "loc": fault["loc"][1:]} for fault in found]
        in_body = found[0]["loc"][0] == "body"
        fault = told_of(faults, error.body if in_body else {**request.query_params})
        words = str(fault) if fault.param else f"the body: {fault}"
        return reply(400, fault.code, words, param=fault.param)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        if error.status_code in (404, 405):
            if methods := _other_methods(request):
                message = f"{path} takes {methods}, not {request.method}"
                refused = reply(405, "method_not_allowed", message)
                refused.headers["Allow"] = methods
                return refused
            message = f"there is no {request.method} {path} here; /docs lists what there is"
            return reply(404, "not_found", message)
        code = HTTP_CODES.get(error.status_code, "error")
        return reply(error.status_code, code, str(error.detail))

    for kind in (ProtocolError, AqaaError, ClientDisconnect):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(Exception, ours)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(HTTPException, http)


def _other_methods(request: Request) -> str:
    """What may be done with the path of this request, whose method is none of them."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    near = [route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL]
    return ", ".join(sorted({method for route in near for method in route.methods or ()}))
