"""An async client of the realtime protocol with typed events.

async with connect("http://127.0.0.1:8000") as server:
    await server.send(ResponseCreate(type="response.create"))
    async for event in server: ...
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from aqaa.models.errors import CapacityError, ConnectionLostError
from aqaa.server.protocol.client_events import ClientEvent, InputAudioBufferAppend, SessionUpdate
from aqaa.server.protocol.close_codes import TRY_LATER
from aqaa.server.protocol.server_events import SERVER_EVENTS, ServerEvent
from aqaa.server.protocol.types import Json

WIRE_RATE = 24_000  # Hz, the protocol's own rate of PCM16
MAX_MESSAGE = 16 * 2**20  # bytes, the protocol's bound


def decode(delta: str) -> NDArray[np.float32]:
    """Base64 PCM16, as `response.output_audio.delta` carries it, as samples in [-1, 1)."""
    pcm: NDArray[np.int16] = np.frombuffer(base64.b64decode(delta), dtype="<i2")
    return np.divide(pcm, 32768, dtype=np.float32)


class Connection:
    """One open conversation. Iterate it for the server's events; `send` the client's."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, event: ClientEvent) -> None:
        """Send one event.

        Raises:
            ConnectionLostError, CapacityError: the server has closed the conversation.
        """
        try:
            await self._socket.send(event.model_dump_json(exclude_none=True))
        except ConnectionClosed as closed:
            raise _lost(closed) from closed

    async def update_session(self, **session: Json | list[str] | str) -> None:
        """Change the named keys of the session (`audio=...`, `instructions=...`)."""
        await self.send(
            SessionUpdate(type="session.update", session={"type": "realtime", **session})
        )

    async def append(self, pcm: NDArray[np.float32]) -> None:
        """Send mono sound in [-1, 1] at `WIRE_RATE` as PCM16."""
        clipped = np.clip(np.rint(pcm * 32767), -32768, 32767).astype("<i2")
        await self.send(InputAudioBufferAppend(audio=clipped.tobytes()))

    async def __aiter__(self) -> AsyncIterator[ServerEvent]:
        """The server's events, until it closes.

        Events of a type that this client does not know are passed over, as the protocol asks.

        Raises:
            ConnectionLostError, CapacityError: it closed for any reason but a normal end.
        """
        try:
            async for message in self._socket:
                try:
                    yield SERVER_EVENTS.validate_json(message)
                except ValidationError as error:
                    if error.errors()[0]["type"] != "union_tag_invalid":
                        raise ConnectionLostError(
                            f"the server sent an event of the wrong shape: {error}"
                        ) from error
        except ConnectionClosed as closed:
            raise _lost(closed) from closed


@asynccontextmanager
async def connect(
    url: str, *, model: str = "nano", api_key: str | None = None
) -> AsyncIterator[Connection]:
    """Open a conversation with the server at `url` (http, https, ws or wss; a path is kept).

    Raises:
        ConnectionLostError: nothing answers there, or it refuses the key.
        CapacityError: the server is full; try again later.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        socket = await open_websocket(
            realtime_url(url, model),
            additional_headers=headers,
            max_size=MAX_MESSAGE,
            compression=None,
            proxy=None if _is_loopback(url) else True,
        )
    except InvalidStatus as refused:
        status = refused.response.status_code
        if status == 503:
            raise CapacityError(f"{url} is full; try again later") from refused
        raise ConnectionLostError(f"{url} refused the connection with HTTP {status}") from refused
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise ConnectionLostError(
            f"no aqaa server answers at {url} ({error}); start one with `aqaa serve`"
        ) from error
    async with socket:
        yield Connection(socket)


def realtime_url(url: str, model: str) -> str:
    """`http://host:8000` -> `ws://host:8000/v1/realtime?model=...`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/").removesuffix("/realtime").removesuffix("/v1")
    query = f"model={quote(model, safe='')}"
    return urlunsplit((scheme, parts.netloc, f"{path}/v1/realtime", query, ""))


def _is_loopback(url: str) -> bool:
    """Whether the server is on this machine, where no proxy of the environment can reach it."""
    host = urlsplit(realtime_url(url, "")).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _lost(closed: ConnectionClosed) -> CapacityError | ConnectionLostError:
    frame = closed.rcvd
    if frame is None:
        return ConnectionLostError("the connection broke without a goodbye")
    if frame.code == TRY_LATER:
        return CapacityError(frame.reason or "the server is full; try again later")
    return ConnectionLostError(
        f"the server closed the conversation ({frame.code} {frame.reason})".rstrip(" )") + ")"
    )
