"""`WS /v1/realtime`: a thin shell between one socket and one `LiveSession`.

`protocol.close_codes` says how a session can end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from aqaa.models.errors import CapacityError, UnauthorizedError
from aqaa.server.gateway.admission import bearer, offered
from aqaa.server.gateway.json_input import off_the_loop, parse_json
from aqaa.server.gateway.origins import origin_is_ours, refusal
from aqaa.server.gateway.outbox import Outbox
from aqaa.server.gateway.outlet import OutboxOutlet
from aqaa.server.gateway.state import ServerState
from aqaa.server.gateway.wire import FRAGMENTS, close_or_abort
from aqaa.server.observe.logs import session_id
from aqaa.server.protocol import beta
from aqaa.server.protocol.client_events import ClientEvent, event_id_of, parse_client_event
from aqaa.server.protocol.close_codes import FAULT, REFUSED, RESTART, TRY_LATER
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.server_events import ErrorEvent
from aqaa.server.protocol.types import Error, Json
from aqaa.server.session.live_session import LiveSession

log = logging.getLogger(__name__)

CLOSE_REASON_BYTES = 120  # a close frame holds 123
CLOSE_SECONDS = 5.0  # for the peer to read what is left and to answer the close frame


@dataclass(frozen=True)
class Goodbye:
    """Why a session ended. `code` None: the client has gone already."""

    code: int | None
    error: str = ""
    message: str = ""


async def realtime(socket: WebSocket, server: ServerState) -> None:
    """Serve one connection from its handshake to its close."""
    key, subprotocol = offered(socket.scope.get("subprotocols", []))
    # A refusal is sent on an open socket: a browser cannot read a failed handshake.
    await socket.accept(subprotocol=subprotocol)
    goodbye = await _admit(socket, server, bearer(socket.headers) or key)
    if goodbye.code is None:
        return
    if goodbye.error:
        server.parts.services.metrics.refused.labels(goodbye.error).inc()
    await close_or_abort(_say_goodbye(socket, goodbye), socket.scope, CLOSE_SECONDS)


async def _admit(socket: WebSocket, server: ServerState, key: str | None) -> Goodbye:
    """Admit the caller, if it is allowed, and serve the session to its end."""
    if not origin_is_ours(socket, server.settings):
        return Goodbye(REFUSED, "origin_not_allowed", refusal(socket.headers["origin"]))
    try:
        caller = server.keys.check_session_key(key)
        async with server.conversation(caller):
            return await _serve(socket, server, caller.session)
    except UnauthorizedError as error:
        return Goodbye(REFUSED, "invalid_api_key", str(error))
    except CapacityError as error:
        code = RESTART if server.sessions.draining else TRY_LATER
        return Goodbye(code, "server_full", str(error))
    except ProtocolError as error:
        return Goodbye(REFUSED, error.code, str(error))


async def _serve(socket: WebSocket, server: ServerState, wanted: Json) -> Goodbye:
    settings = server.settings
    speaks_beta = beta.is_beta(socket.headers, socket.scope.get("subprotocols", []))
    if "call_id" in socket.query_params:
        raise ProtocolError(
            "invalid_value", "no call of this id: there are no calls here", "call_id"
        )
    intent = socket.query_params.get("intent", wanted.get("type", "realtime"))
    if speaks_beta and intent != "realtime":
        raise ProtocolError("invalid_value", "the beta is spoken in conversations only", "intent")
    # Also the settings of a secret: one that another gateway made may ask for more than is here.
    session = await server.new_session(intent, wanted, int(time.time() + settings.session_seconds))
    session_id.set(session.id)
    outbox = Outbox(settings.send_buffer_bytes)

    outlet = OutboxOutlet(outbox, speaks_beta=speaks_beta)
    conversation = LiveSession(server.parts, session, outlet)
    metrics = server.parts.services.metrics
    log.info("session opened")
    metrics.sessions.inc()
    try:
        conversation.open()
        goodbye = await _first_of(
            _read(socket, conversation, speaks_beta),
            _write(socket, outbox),
            _listen(conversation),
            _overflow(outbox),
            _expire(settings.session_seconds),
            _drain(server, conversation, outbox),
        )
    finally:
        await conversation.close()
        metrics.sessions.dec()
    log.info("session closed: %s %s", goodbye.code or "by the client", goodbye.error)
    return goodbye


async def _first_of(*parts: Coroutine[Any, Any, Goodbye]) -> Goodbye:
    """Run the tasks of a session until one of them ends; then cancel the others."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    first = next(task for task in tasks if task in done)
    fault = first.exception()
    if fault is None:
        return first.result()
    if isinstance(fault, WebSocketDisconnect):
        return Goodbye(None)
    log.error("a session failed because of a bug", exc_info=fault)
    return Goodbye(FAULT, "internal_error", "the server failed; its log has the reason")


async def _read(socket: WebSocket, conversation: LiveSession, speaks_beta: bool) -> Goodbye:
    while True:
        frame = await socket.receive()
        if frame["type"] == "websocket.disconnect":
            return Goodbye(None)
        whole = frame.get("bytes") if frame.get("text") is None else frame["text"]
        pieces = frame.get(FRAGMENTS, [whole])
        try:
            event = await off_the_loop(sum(map(len, pieces)), _event, pieces, speaks_beta)
        except ProtocolError as error:
            conversation.refuse(error)
        else:
            await conversation.receive(event)
        await asyncio.sleep(0)  # a client sends thousands at once: others come between


def _event(pieces: list[Any], speaks_beta: bool) -> ClientEvent:
    """The event that a message says: one piece, of text or bytes, or several of bytes."""
    message = parse_json(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    if not isinstance(message, dict):
        raise ProtocolError("invalid_json", "the message is not a JSON object")
    if speaks_beta:
        try:
            message = beta.to_ga(message)
        except ProtocolError as error:
            error.event_id = event_id_of(message)
            raise
    return parse_client_event(message)


async def _write(socket: WebSocket, outbox: Outbox) -> Goodbye:
    while True:
        message = await outbox.get()
        try:
            await socket.send_text(message.text)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return Goodbye(None)
        outbox.sent(message)


async def _listen(conversation: LiveSession) -> Goodbye:
    """Run the session's audio input; ends only by an exception."""
    await conversation.run()
    raise AssertionError("unreachable")


async def _overflow(outbox: Outbox) -> Goodbye:
    await outbox.overflowed.wait()
    return Goodbye(REFUSED, "slow_reader", "the client does not read what it is sent")


async def _expire(seconds: float) -> Goodbye:
    await asyncio.sleep(seconds)
    return Goodbye(
        RESTART, "session_expired", "this session has reached its maximum age; connect again"
    )


async def _drain(server: ServerState, conversation: LiveSession, outbox: Outbox) -> Goodbye:
    """When the server stops: let the running answer end, within the deadline."""
    await server.draining.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(server.settings.drain_seconds):
            await conversation.idle()
            await outbox.drained()
    return Goodbye(RESTART, "server_restarting", "the server is stopping; connect again")


async def _say_goodbye(socket: WebSocket, goodbye: Goodbye) -> None:
    assert goodbye.code is not None
    kind = "server_error" if goodbye.code == FAULT else "invalid_request_error"
    detail = Error.model_validate({"type": kind, "code": goodbye.error, "message": goodbye.message})
    event = ErrorEvent(event_id=random_id("event"), error=detail)
    with suppress(WebSocketDisconnect, RuntimeError, OSError):
        # A client that does not read gets no event; 1012 needs no explanation.
        if goodbye.error not in ("slow_reader", "server_restarting"):
            await socket.send_text(event.model_dump_json())
        reason = goodbye.message.encode()[:CLOSE_REASON_BYTES].decode(errors="ignore")
        await socket.close(goodbye.code, reason)
