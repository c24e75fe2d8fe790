"""An async client of the realtime protocol with typed events.

async with connect("http://127.0.0.1:8000") as server:
    await server.send(ResponseCreate(type="response.create"))
    async for event in server: ...

A server that restarts, is full for the moment, or vanishes does not end a conversation that has
begun: it goes on in a new session. Whoever iterates sees another `session.created`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from aqaa.clients.history import History
from aqaa.clients.liveness import Signs, Silent, messages
from aqaa.models.errors import CapacityError, ConnectionLostError
from aqaa.server.protocol.client_events import (
    ClientEvent,
    ConversationItemCreate,
    InputAudioBufferAppend,
    SessionUpdate,
)
from aqaa.server.protocol.close_codes import RESTART, TRY_LATER
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.server_events import (
    SERVER_EVENTS,
    ErrorEvent,
    ServerEvent,
    SessionCreated,
)
from aqaa.server.protocol.types import Json

WIRE_RATE = 24_000  # Hz, the protocol's own rate of PCM16
MAX_MESSAGE = 16 * 2**20  # bytes, the protocol's bound
PATIENCE = 30.0  # seconds for which a conversation that was cut is tried to go on
OPEN_SECONDS = 5.0  # for a new session to be there
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two tries
SOUND_BYTES = WIRE_RATE * 2 * 4 // 3  # of messages, for each second of sound in them
CLOSING = ("server_full", "session_expired")  # errors that only say why the close frame follows


def decode(delta: str) -> NDArray[np.float32]:
    """Base64 PCM16, as `response.output_audio.delta` carries it, as samples in [-1, 1)."""
    pcm: NDArray[np.int16] = np.frombuffer(base64.b64decode(delta), dtype="<i2")
    return np.divide(pcm, 32768, dtype=np.float32)


class Connection:
    """One conversation. Iterate it for the server's events; `send` the client's.

    It goes on in a new session only while it is iterated. What is sent in between is not lost.
    """

    def __init__(
        self,
        socket: ClientConnection,
        reopen: Callable[[], Awaitable[ClientConnection]],
        patience: float,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._socket = socket
        self._reopen = reopen
        self._patience = patience
        self._on_trouble = on_trouble
        self._history = History(WIRE_RATE)
        self._begun = False
        self._sending = asyncio.Lock()  # nothing is sent while a new session is told the history
        self._signs = Signs(on_trouble)

    async def send(self, event: ClientEvent) -> None:
        """Send one event.

        Raises:
            ConnectionLostError, CapacityError: the server has closed the conversation for good.
        """
        if isinstance(event, ConversationItemCreate) and event.item.id is None:
            item = event.item.model_copy(update={"id": random_id("item")})
            event = event.model_copy(update={"item": item})
        async with self._sending:
            try:
                for one in self._history.sent(event):
                    await self._send(one)
            except ConnectionClosed as closed:
                if not self._may_go_on(closed):
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
        """The server's events, until it closes for good.

        Events of a type that this client does not know are passed over, as the protocol asks.

        Raises:
            ConnectionLostError, CapacityError: it closed for any reason but a normal end, and no
                server was found in time to go on with, or should be.
        """
        while True:
            try:
                async for message in messages(self._socket, self._signs):
                    event = _event(message)
                    if event is not None and not _only_explains(event):
                        self._begun |= isinstance(event, SessionCreated)
                        self._history.received(event)
                        yield event
            except ConnectionClosed as closed:
                if not self._may_go_on(closed):
                    raise _lost(closed) from closed
                yield await self._go_on(_lost(closed))
            except Silent as silent:
                self._socket.transport.abort()
                if not self._begun or self._patience == 0:
                    raise
                yield await self._go_on(silent)
            else:
                return

    async def close(self) -> None:
        """End the conversation."""
        await self._socket.close()

    async def _send(self, event: ClientEvent) -> None:
        message = event.model_dump_json(exclude_none=True)
        self._signs.sent(len(message) / SOUND_BYTES)
        await self._socket.send(message)

    def _may_go_on(self, closed: ConnectionClosed) -> bool:
        passes = closed.rcvd is None or closed.rcvd.code in (RESTART, TRY_LATER)
        return passes and self._begun and self._patience > 0

    async def _go_on(self, why: Exception) -> ServerEvent:
        """A new session that has been told the conversation; returns its `session.created`."""
        self._on_trouble(str(why))
        until = time.monotonic() + self._patience
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._sending:
                    created = await self._begin_session()
                    unheard = time.monotonic() - self._signs.alive_at
                    for event in self._history.replay(round(1000 * unheard)):
                        await self._send(event)
                return created
            except ConnectionClosed as closed:
                if not self._may_go_on(closed):
                    raise _lost(closed) from closed
                error: Exception = _lost(closed)
            except (CapacityError, Unreachable) as failed:
                error = failed
            pause *= random.uniform(1, 2)  # so that clients of one server do not come together
            if time.monotonic() + pause > until:
                raise error
            await asyncio.sleep(pause)
            pause = min(pause, LONGEST_PAUSE / 2)

    async def _begin_session(self) -> SessionCreated:
        self._socket = await self._reopen()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                while True:
                    event = _event(await self._socket.recv())
                    if isinstance(event, SessionCreated):
                        self._history.received(event)
                        return event
        except TimeoutError as error:
            self._socket.transport.abort()
            raise Unreachable("the server gives no session") from error


class Unreachable(ConnectionLostError):
    """No server answers; one may in a moment."""


@asynccontextmanager
async def connect(
    url: str,
    *,
    model: str = "nano",
    api_key: str | None = None,
    patience: float = PATIENCE,
    on_trouble: Callable[[str], None] = lambda why: None,
) -> AsyncIterator[Connection]:
    """Open a conversation with the server at `url` (http, https, ws or wss; a path is kept).

    When it is cut it is tried to go on for `patience` seconds (0: it ends); `on_trouble` is told
    why. It is also told of a server that gives no sign of life while its events are waited for,
    within two seconds; after four it counts as cut.

    Raises:
        ConnectionLostError: nothing answers there, or it refuses the key.
        CapacityError: the server is full; try again later.
    """

    async def open_socket() -> ClientConnection:
        return await _open(url, model, api_key)

    server = Connection(await open_socket(), open_socket, patience, on_trouble)
    try:
        yield server
    finally:
        await server.close()


async def _open(url: str, model: str, api_key: str | None) -> ClientConnection:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        return await open_websocket(
            realtime_url(url, model),
            additional_headers=headers,
            max_size=MAX_MESSAGE,
            compression=None,
            proxy=None if _is_loopback(url) else True,
            open_timeout=OPEN_SECONDS,
        )
    except InvalidStatus as refused:
        status = refused.response.status_code
        if status == 503:
            raise CapacityError(f"{url} is full; try again later") from refused
        if status >= 500:  # of what stands before the servers
            raise Unreachable(f"{url} answers with HTTP {status}") from refused
        raise ConnectionLostError(f"{url} refused the connection with HTTP {status}") from refused
    except (InvalidURI, ValueError) as error:
        raise ConnectionLostError(f"{url!r} is no address of a server: {error}") from error
    # ImportError: a SOCKS proxy of the environment, which needs a package of its own
    except (OSError, WebSocketException, TimeoutError, ImportError) as error:
        raise Unreachable(
            f"no aqaa server answers at {url} ({error}); start one with `aqaa serve`"
        ) from error


def _event(message: str | bytes) -> ServerEvent | None:
    """What the server says; None if this client does not know such events."""
    try:
        return SERVER_EVENTS.validate_json(message)
    except ValidationError as error:
        if error.errors()[0]["type"] != "union_tag_invalid":
            raise ConnectionLostError(
                f"the server sent an event of the wrong shape: {error}"
            ) from error
        return None


def _only_explains(event: ServerEvent) -> bool:
    return isinstance(event, ErrorEvent) and event.error.code in CLOSING


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
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


def _lost(closed: ConnectionClosed) -> CapacityError | ConnectionLostError:
    frame = closed.rcvd
    if frame is None:
        return ConnectionLostError("the connection broke without a goodbye")
    if frame.code == TRY_LATER:
        return CapacityError(frame.reason or "the server is full; try again later")
    return ConnectionLostError(
        f"the server closed the conversation ({frame.code} {frame.reason})".rstrip(" )") + ")"
    )
